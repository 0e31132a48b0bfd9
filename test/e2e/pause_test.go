// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// A replica that is paused during its work, for longer than its Lease lasts, is evicted. When
// it resumes, it does nothing under its old claims, and joins again.
func TestPausedForLongerThanTheLease(t *testing.T) {
	repeat(t, testPausedForLongerThanTheLease)
}

func testPausedForLongerThanTheLease(t *attempt) {
	const objects = 60
	w := newHarness(t)
	w.createFoos(0, objects)
	replicas := w.startMany(0, 2, args("--reconcile-delay=200ms"))
	w.waitWorked(replicas...)
	stopChurn := w.churn(objects, 40)
	time.Sleep(leaseDuration)

	sleeper, other := replicas[0], replicas[1]
	began := time.Now()
	if err := sleeper.Pause(); err != nil {
		t.Fatal(err)
	}
	p := w.waitPlaced(other)
	figures.add(fmt.Sprintf("SIGSTOP, Lease duration %v: until the other member has all partitions", leaseDuration), time.Since(began).Round(10*time.Millisecond).String(), "")
	for i := range objects {
		if owner := p.of(w.key(fmt.Sprintf("foo-%d", i))); owner != other.Pod() {
			t.Fatalf("foo-%d is owned by %q", i, owner)
		}
	}
	time.Sleep(leaseDuration)
	woken := now()
	if err := sleeper.Resume(); err != nil {
		t.Fatal(err)
	}
	w.waitPlaced(sleeper, other)
	time.Sleep(leaseDuration)
	stopChurn()
	w.waitWorked(sleeper, other)
	w.check(true)

	holders := w.holders(sleeper.Pod())
	if len(holders) != 2 {
		t.Fatalf("the Lease was held by %v, want two incarnations", holders)
	}
	h, err := sleeper.History()
	if err != nil {
		t.Fatal(err)
	}
	inHand, late := 0, 0
	for _, r := range h.Records {
		switch {
		case r.Time < woken && r.Event == worklog.Start:
			inHand++
		case r.Time < woken && r.Event == worklog.End:
			inHand--
		case r.Time < woken:
		case r.Member == holders[0] && (r.Event == worklog.Start || r.Event == worklog.Write):
			late++
			t.Brokenf("woken up, the member did this under its old claims, %v later: %+v", time.Duration(r.Time-woken), r)
		}
	}
	if inHand == 0 {
		t.Againf("there was no work in hand when the replica was paused: nothing was tested")
	}
	figures.add("  work in flight when it was paused, writes under the old claims after it resumed", fmt.Sprintf("%d, %d", inHand, late), "0 writes")
	w.stop(sleeper, other)
}
