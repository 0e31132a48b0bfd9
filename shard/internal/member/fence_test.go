// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

func newTestFence() (*fence, *[]ChangeKind) {
	p := newPublished("a_1", ring.Parameters{Key: "name", Partitions: 7, VirtualNodes: 1, Load: 2})
	var kinds []ChangeKind
	c := newChanges(func(c Change) { kinds = append(kinds, c.Kind) })
	return newFence(p, newComponents(), c, Config{StopGracePeriod: time.Second}), &kinds
}

func in(p *Published, d time.Duration) *claim.Time {
	at := p.Now().Add(d)
	return &at
}

// The loop publishes a step that it began before the fence stopped the work, and whose
// deadline is therefore the one that has passed. It must not return: when the wall clock is
// set back, or for any reader that only asks whether there is a deadline, it would be a lift
// without a renewal.
func TestFence_AStepThatBeganEarlierDoesNotBringADeadlineBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newTestFence()
		f.publish(View{Fence: in(f.published, time.Second)}, false)
		stale := *f.published.View() // the loop copies the view …
		time.Sleep(2 * time.Second)
		f.stop(stale.Fence)    // … the fence stops the work …
		f.publish(stale, true) // … and the loop publishes its copy
		if f.published.View().Fence != nil {
			t.Error("the deadline that the fence has removed is back")
		}
	})
}

// The fence decides to stop at a deadline, and a renewal replaces it meanwhile.
func TestFence_StopsNothingAtADeadlineThatWasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newTestFence()
		passed := in(f.published, time.Second)
		f.publish(View{Fence: passed}, false)
		time.Sleep(2 * time.Second)
		f.publish(View{Fence: in(f.published, time.Second)}, false)
		f.stop(passed)
		if f.published.Fenced() || f.down {
			t.Error("stopped at a deadline that a renewal had replaced")
		}
	})
}

// interleaved is a queue that runs a function while the fence ends its work.
type interleaved func()

func (q interleaved) FenceIf(func() bool)      { q() }
func (interleaved) Readmit()                   {}
func (interleaved) Drain(func(uint64) bool)    {}
func (interleaved) Cancel(func(uint64) bool)   {}
func (interleaved) Closed() bool               { return false }
func (interleaved) InFlight() []workqueue.Work { return []workqueue.Work{{Item: "x"}} }
func (interleaved) OnDone(func())              {}
func (interleaved) Parked() int                { return 0 }

// Whatever the loop does while the fence ends the contexts, OnChange alternates between
// Fenced and Unfenced and ends with what is published, and one fence is one overrun.
func TestFence_NotificationsAlternate(t *testing.T) {
	type do func(f *fence)
	lift := func(f *fence) { f.publish(View{Fence: in(f.published, time.Hour)}, false) }
	machineFences := func(f *fence) { // publish and stopWork of the loop
		f.publish(View{}, false)
		f.stop(nil)
		f.changes.post(Change{Kind: Fenced})
	}
	announce := func(f *fence) { f.changes.post(Change{Kind: Unfenced}) }
	for name, meanwhile := range map[string][]do{
		"nothing":                     {},
		"lift":                        {lift},
		"machine fences":              {machineFences},
		"machine fences, lifts":       {machineFences, announce, lift},
		"machine fences, will lift":   {machineFences, announce},
		"lift, machine fences":        {lift, machineFences},
		"lift, machine fences, lifts": {lift, machineFences, announce, lift},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, kinds := newTestFence()
				f.changes.post(Change{Kind: Joined})
				inside := false
				f.components.AddQueue(interleaved(func() {
					if !inside {
						inside = true
						for _, m := range meanwhile {
							m(f)
						}
					}
				}))
				first := in(f.published, time.Second)
				f.publish(View{Fence: first}, false)
				time.Sleep(2 * time.Second)
				f.stop(first)
				if name == "machine fences, will lift" {
					lift(f)
				}
				go f.changes.deliver()
				f.changes.close()
				<-f.changes.done
				is := Unfenced
				for i, k := range (*kinds)[1:] {
					if want := []ChangeKind{Fenced, Unfenced}[i%2]; k != want {
						t.Fatalf("OnChange received %v", *kinds)
					}
					is = k
				}
				if fenced := f.published.View().Fence == nil; fenced != (is == Fenced) {
					t.Errorf("fenced %v, but OnChange received %v", fenced, *kinds)
				}
				t.Log(*kinds)
			})
		})
	}
}

// Work that runs on under a new deadline is no overrun of the fence that was lifted.
func TestFence_ALiftEndsTheWaitForAnOverrun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newTestFence()
		f.components.AddQueue(interleaved(func() {}))
		f.stop(nil)
		f.publish(View{Fence: in(f.published, time.Hour)}, false)
		time.Sleep(2 * time.Second)
		f.checkOverrun(t.Context())
		if f.reporting != nil {
			t.Error("work was reported although the fence was lifted in time")
			<-f.reporting
		}
	})
}
