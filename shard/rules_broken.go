// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build mutants

package shard

// broken is the rule that is left out. 0: none.
var broken rule
