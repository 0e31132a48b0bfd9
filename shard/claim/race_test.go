// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build race

package claim

// defaultSeeds are fewer under the race detector, for which the simulation, having
// one goroutine, is no work.
const defaultSeeds = 60
