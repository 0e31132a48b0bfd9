// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build race

package claimsim

// defaultSeeds is smaller under the race detector, which cannot find anything in the
// simulation because that has only one goroutine.
const defaultSeeds = 60
