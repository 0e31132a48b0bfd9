// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// TestR29_AGapThatHidesALease lets the watch of a member have a gap in which another one, which
// was evicted, claims again under a new Lease, works, and loses that Lease. Only a list of the first
// member has shown the new Lease. The first member needs a while for its ring, so that both claim.
// In half of the runs it handles the last version of the earlier Lease only after that list (R86), and
// loses its own Lease in the gap, too: the next machine of its process must not work either (R64).
func TestR29_AGapThatHidesALease(t *testing.T) {
	met := 0
	const seeds = 100
	for seed := range uint64(seeds) {
		w := calmSim(t, seed+1, 2)
		p, q := w.procs[0], w.procs[1]
		p.slowRings, w.faultsCleared = true, false
		q.pause(time.Hour, false)
		for w.failure == nil && !p.watch.shown[q.lease].Record.Void() {
			w.run(w.now + 5*time.Millisecond)
		}
		p.watch.disconnect()
		w.after(w.between(0, 200*time.Millisecond), q.resume)
		w.after(4*time.Second, p.watch.connect) // at the latest
		hidden := false
		w.onList = func(by *process, leases []claim.Lease) {
			for _, l := range leases {
				if hidden || by != p || l.Name != q.lease || l.Record.Void() || l.UID == p.watch.shown[l.Name].UID || q.work.active == 0 {
					continue
				}
				hidden = true
				met++
				q.cut(20*time.Second, true, true)
				late := w.chance(0.5)
				w.after(w.between(5*time.Millisecond, 20*time.Millisecond), func() { // the response has arrived
					if late {
						p.watch.show(p.watch.shown[q.lease], false)
						w.server.deleteByHand(p.lease)
					}
					w.server.deleteByHand(q.lease)
					p.watch.connect()
				})
			}
		}
		w.run(w.now + 30*time.Second)
		if w.failure != nil {
			t.Errorf("seed %d: %v", seed+1, w.failure)
		}
	}
	if met < seeds/10 {
		t.Errorf("a list has shown a Lease that the watch did not show in %d of %d runs only", met, seeds)
	}
}
