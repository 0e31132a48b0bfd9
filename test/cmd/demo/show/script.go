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
	// stopTime is how long a replica may take to stop when it is asked to.
	stopTime = 30 * time.Second
	// catchUpTime is how long the replicas may take to work on the last changes.
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
		if len(report.steps) == 1 { // now that everything has been worked on once
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
	stopDrawing() // on a picture in which all is well
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

// startThree starts the first replicas at once, on objects that exist already.
func (d *demo) startThree(ctx context.Context) (outcome, error) {
	d.say(headline{
		text:   "Three replicas start",
		detail: fmt.Sprintf("They find each other through their Leases and share the %s.", plural(d.objects, "object")),
	})
	names := []string{replicaName(0), replicaName(1), replicaName(2)}
	r, err := d.measure(ctx, names, func() (int, error) {
		for _, name := range names {
			if _, err := d.start(ctx, name); err != nil {
				return nobody, err
			}
		}
		return nobody, nil
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

// untilWorked waits until each object was worked on once.
func (d *demo) untilWorked(ctx context.Context) error {
	d.say(headline{text: "Each object is worked on for the first time", detail: "For each of its Foos a replica creates a Deployment and writes a status."})
	deadline := time.Now().Add(patience + time.Duration(d.objects)*20*time.Millisecond)
	for d.board.untouched() > 0 {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s still not worked on %v after the start", plural(d.board.untouched(), "object"), patience)
		}
		if err := sleep(ctx, resolution); err != nil {
			return err
		}
	}
	reconciles := 0
	for _, m := range d.view(time.Now()).members {
		reconciles += m.reconciles
	}
	d.note(done, "each has been worked on: %s, %s", plural(d.objects, "object"), plural(reconciles, "reconcile"))
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
	d.note(done, "%s has joined: %s moved, no owner for up to %s", name, plural(r.moved, "object"), seconds(r.longest))
	return outcome{name: "one joins", result: r, moves: true}, nil
}

// stopOne stops a replica as Kubernetes does, with SIGTERM.
func (d *demo) stopOne(ctx context.Context) (outcome, error) {
	const m = 1
	r := d.replicas[m]
	d.say(headline{text: r.name + " is stopped (SIGTERM)", detail: "It finishes what it has begun, hands its objects over, and exits."})
	d.expect(r)
	d.board.enter(m, stopping)
	result, err := d.measure(ctx, []string{replicaName(0), replicaName(2), replicaName(3)}, func() (int, error) {
		if err := r.signal(syscall.SIGTERM); err != nil {
			return m, err
		}
		d.background.Go(func() { // beside the measurement, which is of the objects
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
		return outcome{}, fmt.Errorf("%s has not ended %v after SIGTERM", r.name, stopTime)
	case <-ctx.Done():
		return outcome{}, context.Cause(ctx)
	}
	if r.err != nil {
		return outcome{}, r.failure()
	}
	d.note(done, "%s was stopped: %s moved, no owner for up to %s", r.name, plural(result.moved, "object"), seconds(result.longest))
	return outcome{name: "one stopped (SIGTERM)", result: result, moves: true}, nil
}

// killOne kills a replica. Its Lease has to expire before anybody may take over.
func (d *demo) killOne(ctx context.Context) (outcome, error) {
	const m = 2
	r := d.replicas[m]
	d.expect(r)
	result, err := d.measure(ctx, []string{replicaName(0), replicaName(3)}, func() (int, error) {
		at := time.Now()
		d.say(headline{
			text:   r.name + " is killed (SIGKILL)",
			detail: fmt.Sprintf("The others must not take over before its Lease of %.0f s has run out.", d.lease.Seconds()),
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

// measure makes a change and waits until every object is with the owner that the
// ring of the names has for it. change returns the member that it makes come or go.
func (d *demo) measure(ctx context.Context, names []string, change func() (int, error)) (result, error) {
	want, err := d.wanted(names)
	if err != nil {
		return result{}, err
	}
	// Closely from before the change, or what was last seen is too long ago.
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
			return result{}, fmt.Errorf("after %v not every object is with its owner; without one: %d", d.lease+patience, v.unowned)
		}
		if err := sleep(ctx, resolution/2); err != nil {
			return result{}, err
		}
	}
	return d.board.finish(m), nil
}

// wanted returns where the ring of the named members has each point. Members that
// have not started yet get the indices that they will have.
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

// look leaves time to look at what came out.
func (d *demo) look(ctx context.Context) error {
	text := fmt.Sprintf("All objects have an owner; %s of objects a second", plural(d.changes, "change"))
	d.say(headline{text: text, detail: "White squares: where somebody is working."})
	return sleep(ctx, d.pause)
}

// catchUp lets the replicas work on the last changes, and returns the objects as
// they are then.
func (d *demo) catchUp(ctx context.Context, report *summary) ([]v1alpha1.Foo, error) {
	d.say(headline{text: "The end", detail: "No more changes. The replicas finish their work and are stopped."})
	final, behind, err := d.foos.current(ctx, catchUpTime)
	if err != nil {
		return nil, err
	}
	if behind > 0 {
		d.note(failed, "%s not worked on after %v", plural(behind, "object"), catchUpTime)
	}
	v := d.view(time.Now())
	report.members, report.unowned = v.members, v.unowned
	return final, nil
}

// stopAll stops the replicas and reads what they have recorded.
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
