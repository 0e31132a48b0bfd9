// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/foos"
)

const (
	// takeover is how long a member may take to notice that a Lease has expired, and to take over.
	takeover = 2 * time.Second
	// patience is how much longer than expected a step may take before the demo fails.
	patience = 30 * time.Second
	// catchUpTime is how long the replicas may take to process the last changes.
	catchUpTime = 15 * time.Second
	// changeTime is how long one change of a Foo may take.
	changeTime = 3 * time.Second
	// tolerated is how many consecutive changes may fail, because an API server may be busy.
	tolerated = 20
)

// step is one membership change.
type step struct {
	name   string        // in the summary
	title  string        // while it lasts
	detail string        // below the title
	done   string        // in the log
	atMost time.Duration // the guaranteed maximum time without an owner; zero if there is none
	rest   []int         // the numbers of the replicas after the change
	change func(context.Context) error
}

func replicaName(i int) string { return fmt.Sprintf("%s-%d", ringName, i) }

// steps returns the script.
func (d *demo) steps() []step {
	start := func(from, to int) func(context.Context) error {
		return func(ctx context.Context) (err error) {
			for i := from; i <= to && err == nil; i++ {
				err = d.start(ctx, replicaName(i))
			}
			return err
		}
	}
	stop := func(context.Context) error {
		m := d.board.members[1]
		m.expected.Store(true)
		d.board.enter(m, stopping)
		d.watching.Go(func() { // the step concerns only the objects
			if err := m.Stop(); err != nil {
				d.fail(err)
			}
		})
		return nil
	}
	kill := func(context.Context) error {
		m := d.board.members[2]
		m.expected.Store(true)
		m.Kill()
		return nil
	}
	return []step{
		{
			"three start", "Three replicas start",
			"They find each other through their Leases and share the " + plural(d.objects, "object") + ".",
			"three replicas share " + plural(d.objects, "object"), 0,
			[]int{0, 1, 2},
			start(0, 2),
		},
		{
			"one joins", replicaName(3) + " joins",
			"About a quarter of the objects move to it; the others stay where they are.",
			replicaName(3) + " joined", 0,
			[]int{0, 1, 2, 3},
			start(3, 3),
		},
		{
			"one stopped (SIGTERM)", replicaName(1) + " is stopped (SIGTERM)",
			"It finishes its work in flight, hands over its objects, and exits.",
			replicaName(1) + " was stopped", 0,
			[]int{0, 2, 3},
			stop,
		},
		{
			"one killed (SIGKILL)", replicaName(2) + " is killed (SIGKILL)",
			fmt.Sprintf("The others must not take over before its Lease of %.0f s has expired.", d.lease.Seconds()),
			replicaName(2) + " was killed", d.lease + takeover,
			[]int{0, 3},
			kill,
		},
	}
}

// play plays the script, then prints the summary.
func (d *demo) play(ctx context.Context) error {
	d.began = time.Now()
	stopDrawing := background(ctx, d.draw)
	defer stopDrawing()
	stopChanging := func() int { return 0 }
	defer func() { stopChanging() }()

	report := summary{objects: d.objects}
	var before *ring.Ring
	for i, s := range d.steps() {
		after, r, err := d.playStep(ctx, s, before)
		if err != nil {
			return err
		}
		report.steps = append(report.steps, outcome{name: s.name, result: r, moves: i > 0, atMost: s.atMost})
		if before = after; i == 0 {
			if err := d.firstWork(ctx); err != nil {
				return err
			}
			stopChanging = d.change(ctx)
		}
		d.announce(headline{
			text:   fmt.Sprintf("All objects have an owner; %s per second", plural(d.changes, "change")),
			detail: "Each replica reconciles the objects that it owns, and no others.",
		})
		if err := foos.Sleep(ctx, d.pause); err != nil {
			return err
		}
	}

	d.announce(headline{text: "The end", detail: "No more changes. The replicas finish their work and are stopped."})
	stopChanging()
	final, _, err := d.catchUp(ctx, catchUpTime) // what is behind then is in the verdict
	if err != nil {
		return err
	}
	stopDrawing() // while all objects still have an owner
	report.members, report.unowned = d.board.rows()
	if err := d.stopAll(stopTime); err != nil {
		return err
	}
	if report.verdict, err = d.check(final); err != nil {
		return err
	}
	d.out.say(report.table()...)
	return report.err()
}

// playStep makes a change, and waits until every object is with its owner on the ring of the members after it.
func (d *demo) playStep(ctx context.Context, s step, before *ring.Ring) (after *ring.Ring, r result, err error) {
	var names []string
	for _, i := range s.rest {
		names = append(names, replicaName(i))
	}
	if after, err = ring.New(ring.DefaultParameters(), names); err != nil {
		return nil, r, err
	}
	d.announce(headline{text: s.title, detail: s.detail, atMost: s.atMost})
	began := worklog.Now()
	if err := s.change(ctx); err != nil {
		return nil, r, err
	}
	for deadline, ok := time.Now().Add(d.lease+patience), false; !ok; {
		if time.Now().After(deadline) {
			return nil, r, fmt.Errorf("not every object is with its owner after %v; %d have no owner", d.lease+patience, d.view().unowned)
		}
		if err := foos.Sleep(ctx, askEvery/4); err != nil {
			return nil, r, err
		}
		if !d.board.settled(after) {
			continue
		}
		records, err := d.check(nil)
		if err != nil {
			return nil, r, err
		}
		r, ok = measure(records, d.board.objects, before, after, began)
	}
	text := fmt.Sprintf("%s: %s moved, no owner for up to %s", s.done, plural(r.moved, "object"), seconds(r.longest))
	switch {
	case before == nil:
		d.note(good, "✔", s.done+" after "+seconds(r.took))
	case s.atMost > 0 && r.longest > s.atMost:
		d.note(warn, "!", text)
	default:
		d.note(good, "✔", text)
	}
	return after, r, nil
}

// firstWork waits until each object was processed once.
func (d *demo) firstWork(ctx context.Context) error {
	d.announce(headline{
		text:   "Each object is processed for the first time",
		detail: "For each of its Foos, a replica creates a Deployment and writes the status.",
	})
	atMost := patience + time.Duration(d.objects)*20*time.Millisecond
	_, behind, err := d.catchUp(ctx, atMost)
	if err == nil && len(behind) > 0 {
		err = fmt.Errorf("%s still not processed %v after the start", plural(len(behind), "object"), atMost)
	}
	if err != nil {
		return err
	}
	records, err := d.check(nil)
	if err != nil {
		return err
	}
	d.note(good, "✔", fmt.Sprintf("each object was processed: %s, %s", plural(d.objects, "object"), plural(records.Reconciles, "reconcile")))
	return nil
}

// change changes random Foos until stop is called.
func (d *demo) change(ctx context.Context) (stop func() int) {
	if d.changes == 0 {
		return func() int { return 0 }
	}
	var failures atomic.Int64
	return foos.Load(ctx, float64(d.changes), func(ctx context.Context, _ int) error {
		name := d.names[rand.IntN(len(d.names))]
		// Not cancelled with ctx, because an abandoned request may still be executed later.
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
		defer cancel()
		err := d.foos.Change(limited, name, 1+rand.IntN(9))
		if err == nil {
			failures.Store(0)
		} else if failures.Add(1) > tolerated {
			d.fail(fmt.Errorf("change Foo %s: %w", name, err))
		}
		return err
	})
}

// catchUp waits until each status reflects the last change of the spec, but no longer than atMost. It returns the versions of
// the objects at that time, and those that were not processed yet.
func (d *demo) catchUp(ctx context.Context, atMost time.Duration) (versions map[string]string, behind []string, err error) {
	for deadline := time.Now().Add(atMost); err == nil; err = foos.Sleep(ctx, 200*time.Millisecond) {
		versions, behind, err := d.foos.State(ctx)
		if err == nil && len(versions) < d.objects {
			err = errors.New("some Foos were deleted, but not by the demo")
		}
		if err != nil || len(behind) == 0 || time.Now().After(deadline) {
			return versions, behind, err
		}
	}
	return nil, nil, err
}

// background calls a function in a goroutine. stop ends it and waits for it.
func background(ctx context.Context, do func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() { do(ctx) })
	return func() { cancel(); wait.Wait() }
}
