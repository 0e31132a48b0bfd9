// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package claim

const defaultSeeds = 300
