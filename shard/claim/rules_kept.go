// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !mutants

package claim

import "github.com/tom-ludwig/operator-scaling/shard/ring"

const broken = rule(0)

// takeBack is for those who break a rule.
func (m *Machine) takeBack(ring.Set, partitionState) {}
