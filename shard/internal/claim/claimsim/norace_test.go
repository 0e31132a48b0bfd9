// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package claimsim

const defaultSeeds = 300
