// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

const (
	// patience is how much longer than expected a step may take before the demo fails.
	patience = 30 * time.Second
	// stopTime is how long a replica may take to stop after SIGTERM.
	stopTime = 30 * time.Second
	// catchUpTime is how long the replicas may take to process the last changes.
	catchUpTime = 15 * time.Second
)

func replicaName(i int) string { return fmt.Sprintf("%s-%d", ringName, i) }

// show plays the script and then the summary.
func (d *demo) show(ctx context.Context) error {
	d.began = time.Now()
	drawing, stopDrawing := context.WithCancel(ctx)
	var drawn sync.WaitGroup
	drawn.Go(func() { d.draw(drawing) })
	defer drawn.Wait()
	defer stopDrawing()

	changing, stopChanging := context.WithCancel(ctx)
	var changed sync.WaitGroup
	defer changed.Wait()
	defer stopChanging()
	report := summary{objects: d.objects}
	for _, act := range []func(context.Context) (outcome, error){d.startThree, d.joinOne, d.stopOne, d.killOne} {
		o, err := act(ctx)
		if err != nil {
			return err
		}
		report.steps = append(report.steps, o)
		if len(report.steps) == 1 { // now that every object has been processed once
			changed.Go(func() {
				if err := d.foos.change(changing, d.changes); err != nil {
					d.fail(err)
				}
			})
		}
		if err := d.look(ctx); err != nil {
			return err
		}
	}
	stopChanging()
	changed.Wait()
	final, err := d.catchUp(ctx, &report)
	if err != nil {
		return err
	}
	stopDrawing() // while all objects still have an owner
	drawn.Wait()
	if report.verdict, err = d.stopAll(ctx, final); err != nil {
		return err
	}
	d.out.Close()
	d.out.Say(report.table(d.out.Look())...)
	if len(report.broken()) > 0 {
		return fmt.Errorf("%w: %s", errBroken, strings.Join(report.broken(), "; "))
	}
	return nil
}

// startThree starts the first replicas at the same time, with existing objects.
func (d *demo) startThree(ctx context.Context) (outcome, error) {
	d.say(headline{
		text:   "Three replicas start",
		detail: fmt.Sprintf("They find each other through their Leases and share the %s.", plural(d.objects, "object")),
	})
	names := []string{replicaName(0), replicaName(1), replicaName(2)}
	r, err := d.measure(ctx, names, func() (int, error) {
		for _, name := range names {
			if _, err := d.start(ctx, name); err != nil {
				return noOwner, err
			}
		}
		return noOwner, nil
	})
	if err != nil {
		return outcome{}, err
	}
	d.note(done, "three replicas share %s after %s", plural(d.objects, "object"), seconds(r.took))
	if err := d.untilWorked(ctx); err != nil {
		return outcome{}, err
	}
	return outcome{name: "three start", result: r}, nil
}

// untilWorked waits until each object was processed once.
func (d *demo) untilWorked(ctx context.Context) error {
	d.say(headline{text: "Each object is processed for the first time", detail: "For each of its Foos, a replica creates a Deployment and writes the status."})
	deadline := time.Now().Add(patience + time.Duration(d.objects)*20*time.Millisecond)
	for d.board.untouched() > 0 {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s still not processed %v after the start", plural(d.board.untouched(), "object"), patience)
		}
		if err := sleep(ctx, resolution); err != nil {
			return err
		}
	}
	reconciles := 0
	for _, m := range d.view(time.Now()).members {
		reconciles += m.reconciles
	}
	d.note(done, "each object was processed: %s, %s", plural(d.objects, "object"), plural(reconciles, "reconcile"))
	return nil
}

// joinOne adds a replica.
func (d *demo) joinOne(ctx context.Context) (outcome, error) {
	name := replicaName(3)
	d.say(headline{text: name + " joins", detail: "About a quarter of the objects change colour; the others stay where they are."})
	r, err := d.measure(ctx, []string{replicaName(0), replicaName(1), replicaName(2), name}, func() (int, error) {
		return d.start(ctx, name)
	})
	if err != nil {
		return outcome{}, err
	}
	d.note(done, "%s joined: %s moved, no owner for up to %s", name, plural(r.moved, "object"), seconds(r.longest))
	return outcome{name: "one joins", result: r, moves: true}, nil
}

// stopOne stops a replica as Kubernetes does, with SIGTERM.
func (d *demo) stopOne(ctx context.Context) (outcome, error) {
	const m = 1
	r := d.replicas[m]
	d.say(headline{text: r.name + " is stopped (SIGTERM)", detail: "It finishes its work in flight, hands over its objects, and exits."})
	d.expect(r)
	d.board.enter(m, stopping)
	result, err := d.measure(ctx, []string{replicaName(0), replicaName(2), replicaName(3)}, func() (int, error) {
		if err := r.signal(syscall.SIGTERM); err != nil {
			return m, err
		}
		d.background.Go(func() { // concurrently with the measurement, which only concerns the objects
			<-r.exited
			d.board.end(m, stopped, time.Time{})
		})
		return m, nil
	})
	if err != nil {
		return outcome{}, err
	}
	select {
	case <-r.exited:
	case <-time.After(stopTime):
		return outcome{}, fmt.Errorf("%s did not exit within %v after SIGTERM", r.name, stopTime)
	case <-ctx.Done():
		return outcome{}, context.Cause(ctx)
	}
	if r.err != nil {
		return outcome{}, r.failure()
	}
	d.note(done, "%s was stopped: %s moved, no owner for up to %s", r.name, plural(result.moved, "object"), seconds(result.longest))
	return outcome{name: "one stopped (SIGTERM)", result: result, moves: true}, nil
}

// killOne kills a replica. Its Lease must expire before another member may take over.
func (d *demo) killOne(ctx context.Context) (outcome, error) {
	const m = 2
	r := d.replicas[m]
	d.expect(r)
	result, err := d.measure(ctx, []string{replicaName(0), replicaName(3)}, func() (int, error) {
		at := time.Now()
		d.say(headline{
			text:   r.name + " is killed (SIGKILL)",
			detail: fmt.Sprintf("The others must not take over before its Lease of %.0f s has expired.", d.lease.Seconds()),
			since:  at,
			atMost: d.takeover(),
		})
		if err := r.signal(syscall.SIGKILL); err != nil {
			return m, err
		}
		<-r.exited
		d.board.end(m, killed, at)
		return m, nil
	})
	if err != nil {
		return outcome{}, err
	}
	kind := done
	if result.longest > d.takeover() {
		kind = slow
	}
	d.note(kind, "%s was killed: %s moved, no owner for up to %s", r.name, plural(result.moved, "object"), seconds(result.longest))
	return outcome{name: "one killed (SIGKILL)", result: result, moves: true, atMost: d.takeover()}, nil
}

// measure makes a change and waits until every object is with its owner on the ring of
// the named members. change returns the member that joins or leaves.
func (d *demo) measure(ctx context.Context, names []string, change func() (int, error)) (result, error) {
	want, err := d.wanted(names)
	if err != nil {
		return result{}, err
	}
	// Watch closely before the change already, so that the last observation before it is
	// recent.
	d.watcher.closely.Store(true)
	defer d.watcher.closely.Store(false)
	if err := sleep(ctx, 2*leisurely); err != nil {
		return result{}, err
	}
	deadline := time.Now().Add(d.lease + patience)
	d.board.begin(time.Now(), want)
	m, err := change()
	if err != nil {
		return result{}, err
	}
	for !d.board.settled() {
		if time.Now().After(deadline) {
			v := d.view(time.Now())
			return result{}, fmt.Errorf("not every object is with its owner after %v; %d have no owner", d.lease+patience, v.unowned)
		}
		if err := sleep(ctx, resolution/2); err != nil {
			return result{}, err
		}
	}
	return d.board.finish(m), nil
}

// wanted returns the owner of each point on the ring of the named members. Members that
// have not started yet have the indices that they will get.
func (d *demo) wanted(names []string) (func(point uint64) int, error) {
	r, err := ring.New(ring.DefaultParameters(), names)
	if err != nil {
		return nil, err
	}
	index := map[string]int{}
	for i := range len(d.replicas) + len(names) {
		index[replicaName(i)] = i
	}
	return func(point uint64) int {
		name, _ := r.OwnerOf(point) // a ring with members has one
		return index[name]
	}, nil
}

// look leaves time to look at the result.
func (d *demo) look(ctx context.Context) error {
	text := fmt.Sprintf("All objects have an owner; %s per second", plural(d.changes, "change"))
	d.say(headline{text: text, detail: "White squares: objects that a replica has just worked on."})
	return sleep(ctx, d.pause)
}

// catchUp waits until the replicas have processed the last changes, and returns the
// objects at that time.
func (d *demo) catchUp(ctx context.Context, report *summary) ([]v1alpha1.Foo, error) {
	d.say(headline{text: "The end", detail: "No more changes. The replicas finish their work and are stopped."})
	final, behind, err := d.foos.current(ctx, catchUpTime)
	if err != nil {
		return nil, err
	}
	if behind > 0 {
		d.note(failed, "%s not processed after %v", plural(behind, "object"), catchUpTime)
	}
	v := d.view(time.Now())
	report.members, report.unowned = v.members, v.unowned
	return final, nil
}

// stopAll stops the replicas and checks their records.
func (d *demo) stopAll(ctx context.Context, final []v1alpha1.Foo) (verdict, error) {
	for _, r := range d.replicas {
		d.expect(r)
	}
	limited, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	if err := errors.Join(each(d.replicas, func(r *replica) error { return r.stop(limited) })...); err != nil {
		return verdict{}, err
	}
	return judge(d.replicas, final)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
