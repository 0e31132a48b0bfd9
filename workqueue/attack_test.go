// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// A process with two rings: work on a key of one ring acquires a key of the other ring, which
// another member owns. Then the first ring hands its key over. The drain wakes only the callers of
// its own Acquirer, so Acquire does not return ErrDraining, as its comment says, but waits until
// DrainGrace has passed and the context of the work is cancelled.
func TestAttackQ6_AcquireOnAnotherRingHoldsUpTheDrain(t *testing.T) {
	t.Skip("each such handover takes DrainGrace longer")
	synctest.Test(t, func(t *testing.T) {
		point := func(key string) uint64 { return uint64(key[0]-'0') << 60 }
		one, two := newOwner(ring.Active), newOwner(ring.NotOwned)
		first, second := NewAcquirer(one, point), NewAcquirer(two, point)
		outer, doneOuter, err := first.Acquire(context.Background(), "1")
		if err != nil {
			t.Fatal(err)
		}
		defer doneOuter()
		ctx, cancel := context.WithCancel(outer)
		defer cancel()
		result := make(chan error, 1)
		go func() {
			_, _, err := second.Acquire(ctx, "2")
			result <- err
		}()
		synctest.Wait()
		one.set(1, ring.Pending)
		first.Drain(func(point uint64) bool { return point == 1<<60 })
		synctest.Wait()
		select {
		case err := <-result:
			if !errors.Is(err, ErrDraining) {
				t.Error(err)
			}
		default:
			t.Error("Acquire waits although the drain of the outer work waits for it")
			cancel()
			<-result
		}
	})
}
