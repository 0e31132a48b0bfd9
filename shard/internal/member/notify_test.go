// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// The queue of changes for an OnChange that does not return is bounded. The changes that
// OnChange receives afterwards describe what the member has.
func TestOnChange_GetsTheStateWhenItWasTooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		had := map[int]bool{}
		fenced, dropped := false, 0
		c := newChanges(func(c Change) {
			<-hold
			switch c.Kind {
			case Joined, Left:
				clear(had)
				fenced = false
				if errors.Is(c.Err, ErrChangesDropped) {
					dropped++
				}
			case Activated:
				for _, p := range c.Partitions {
					if had[p] {
						t.Errorf("partition %d is activated twice", p)
					}
					had[p] = true
				}
			case Draining, Released:
				for _, p := range c.Partitions {
					delete(had, p)
				}
			case Fenced, Unfenced:
				fenced = c.Kind == Fenced
			}
		})
		go c.deliver()
		c.post(Change{Kind: Joined, Member: "a"})
		synctest.Wait() // the first change is being delivered
		for i := range 10 * maxChanges {
			c.post(Change{Kind: Activated, Partitions: []int{i % 10}})
			if n := len(c.queue); n > maxChanges {
				t.Fatalf("%d changes wait", n)
			}
			if i%10 != 7 || i < 10*maxChanges-10 {
				c.post(Change{Kind: Draining, Partitions: []int{i % 10}})
				c.post(Change{Kind: Released, Partitions: []int{i % 10}})
			}
			if i%3 == 0 {
				c.post(Change{Kind: Fenced})
				c.post(Change{Kind: Unfenced})
			}
		}
		c.post(Change{Kind: Fenced})
		close(hold)
		c.close()
		<-c.done
		if diff := cmp.Diff(map[int]bool{7: true}, had); diff != "" || !fenced || dropped != 1 {
			t.Errorf("fenced %v, dropped %d times, partitions (-want +got):\n%s", fenced, dropped, diff)
		}
		if c.number() != c.delivered {
			t.Errorf("%d changes, of which the last to be delivered is %d", c.number(), c.delivered)
		}
	})
}
