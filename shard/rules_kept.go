// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !mutants

package shard

const broken = rule(0)
