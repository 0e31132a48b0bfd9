// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// handovers measures how long it takes from the ring giving a partition to this member
// until it is active. The zero value waits for none.
type handovers struct {
	wanted map[int]time.Time // since when a partition has been wanted but not active
}

// waiting reports whether a partition is wanted but not active.
func (h *handovers) waiting() bool { return len(h.wanted) > 0 }

// observe returns how long each partition has waited that is active now.
func (h *handovers) observe(v *View, pod string) (took []time.Duration) {
	if h.wanted == nil || v.Ring.Parameters().Partitions != len(v.States) {
		h.wanted = map[int]time.Time{} // numbers mean something else now
	}
	for partition, state := range v.States {
		owner, _ := v.Ring.Owner(partition)
		since, waiting := h.wanted[partition]
		switch {
		case owner != pod:
			delete(h.wanted, partition)
		case state != ring.Active && !waiting:
			h.wanted[partition] = time.Now()
		case state == ring.Active && waiting:
			took = append(took, time.Since(since))
			delete(h.wanted, partition)
		}
	}
	return took
}
