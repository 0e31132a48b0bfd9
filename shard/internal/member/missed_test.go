// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"testing"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// The first list of the watch may arrive when one machine has ended and the next one has not
// started: without it, a newcomer would wait forever (R49).
func TestR49_TheFirstListBetweenTwoMachinesIsNotLost(t *testing.T) {
	m := &Member{ended: claim.ErrVanished}
	m.apply(claim.WatchProgress{Version: "6"})
	m.apply(claim.LeaseDeleted{Last: claim.Lease{Name: "x"}})
	m.apply(claim.WatchProgress{Version: "7", Listed: true})
	if len(m.missed) != 2 || m.missed[1] != (claim.WatchProgress{Version: "7", Listed: true}) {
		t.Errorf("the next machine gets %v", m.missed)
	}
}
