// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// While no machine runs, the one that has ended follows the watch for the next one (R64).
func TestR64_WhatTheWatchShowsBetweenTwoMachinesIsNotLost(t *testing.T) {
	m := &Member{Published: newPublished("a_1", ring.DefaultParameters()), ended: claim.ErrStopped}
	m.machine = claim.New(claim.Config{Member: "a", Lease: "a", Holder: "a_1", Parameters: ring.DefaultParameters(), LeaseDuration: time.Minute})
	m.machine.Step(m.Published.Now(), claim.Stop{})
	if !m.machine.Ended() {
		t.Fatal("the machine has not ended")
	}
	b := claim.Lease{Name: "b", UID: "uid-b", Version: "7", Record: claim.Record{Member: "b", Holder: "b_1", Phase: claim.PhaseActive, Claims: claim.Claims{Everything: true}, Duration: time.Minute}}
	m.apply(claim.LeaseObserved{Lease: b})
	m.apply(claim.LeaseDeleted{Last: b, Final: true})
	if got := m.machine.Tombstones(); len(got) != 1 || got[0].UID != b.UID {
		t.Errorf("the next machine gets %v", got)
	}
}
