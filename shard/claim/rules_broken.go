// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build mutants

package claim

import (
	"fmt"
	"os"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// broken is the rule that is left out. 0: none. Tests of this package set it; a
// whole process takes it from the environment.
var broken = brokenInProcess()

func brokenInProcess() rule {
	switch name := os.Getenv("BROKEN_CLAIM_RULE"); name {
	case "":
		return 0
	case "lookAfterClaim":
		return lookAfterClaim
	case "fenceAtAll":
		return fenceAtAll
	case "drainFirst":
		return drainFirst
	case "freshCache":
		return freshCache
	default:
		panic(fmt.Sprintf("no process can run without the rule %q", name))
	}
}

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
