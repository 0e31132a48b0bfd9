// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build mutants

package claim

import "github.com/tom-ludwig/operator-scaling/shard/ring"

// broken is the rule that is left out. 0: none.
var broken rule

// takeBack puts partitions that were given up into another state.
func (m *Machine) takeBack(set ring.Set, to partitionState) {
	taken := ring.NewSet(len(m.parts.state))
	for p := range set.All() {
		if p < len(m.parts.state) && m.parts.state[p] == free {
			m.parts.state[p] = to
			taken.Add(p)
		}
	}
	if !taken.Empty() {
		m.do(Claimed{Partitions: taken})
	}
}
