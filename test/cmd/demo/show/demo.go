// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/process"
	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/terminal"
)

// ringName is the name of the operator whose replicas are shown.
const ringName = "foo-operator"

// demo is one run.
type demo struct {
	options
	out     output
	watched bool // the output is a terminal
	dir     string

	cluster  *cluster
	foos     *foos
	board    *board
	watcher  *watcher
	replica  replicaOptions
	replicas []*replica // by index of the member

	began time.Time // of the part that is drawn

	mu     sync.Mutex // guards what follows
	now    headline
	log    []event
	byHand []string // commands to clean up by hand
	// expected has the replicas whose end is not a failure.
	expected map[*replica]bool

	// background has the goroutines that watch and draw; fail ends the run.
	background sync.WaitGroup
	fail       context.CancelCauseFunc
}

// errBroken means that the demo ran to its end and showed that a guarantee does not hold.
var errBroken = errors.New("a guarantee was violated")

// newDemo returns a demo that does nothing yet. watched means that the output is a
// terminal.
func newDemo(o options, out output, watched bool) *demo {
	return &demo{options: o, out: out, watched: watched, expected: map[*replica]bool{}}
}

// run runs the whole demo. err is what went wrong, left is what could not be cleaned up.
func (d *demo) run(ctx context.Context) (err, left error) {
	ctx, d.fail = context.WithCancelCause(ctx)
	defer d.fail(nil)

	temporary, err := os.MkdirTemp("", "operator-scaling-demo-")
	if err != nil {
		return process.Explain(err), nil
	}
	d.mustRemove("rm -r " + temporary)
	// Last: until then replicas write to it.
	defer func() { left = errors.Join(left, os.RemoveAll(temporary)) }()
	// A build that is interrupted leaves its files behind.
	if err := os.Setenv("GOTMPDIR", temporary); err != nil {
		return err, nil
	}
	if d.dir = temporary; d.keep != "" {
		d.dir = d.keep
		if err := emptyFolder(d.dir); err != nil {
			return fmt.Errorf("-keep: %w", err), nil
		}
	}
	err = d.setUp(ctx, temporary)
	if err == nil {
		err = d.show(ctx)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause // other errors are consequences of it
	}
	return err, d.cleanUp()
}

// emptyFolder creates a directory if it does not exist. It must not have records of an
// earlier run.
func emptyFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if old, _ := filepath.Glob(filepath.Join(dir, "*.record")); len(old) > 0 { // the pattern is valid
		return fmt.Errorf("%s has records of an earlier run: choose another directory", dir)
	}
	return nil
}

// setUp builds what is needed and prepares the cluster.
func (d *demo) setUp(ctx context.Context, temporary string) (err error) {
	var binary string
	if d.kubeconfig == "" {
		binary, err = d.setUpLocal(ctx, temporary)
	} else {
		binary, err = d.setUpRemote(ctx, temporary)
	}
	if err != nil {
		return err
	}
	d.replica = replicaOptions{
		binary: binary, dir: d.dir, kubeconfig: d.cluster.kubeconfig,
		namespace: d.cluster.namespace, ring: ringName, lease: d.lease,
	}
	return d.createFoos(ctx)
}

// setUpLocal starts a control plane. It returns the path of the replicas' binary.
func (d *demo) setUpLocal(ctx context.Context, temporary string) (binary string, err error) {
	plane, err := buildControlPlane(ctx, d.out)
	if err != nil {
		return "", err
	}
	if binary, err = buildReplica(ctx, d.out, temporary); err != nil {
		return "", err
	}
	if d.cluster, err = startLocal(ctx, d.out, plane); err != nil {
		return "", err
	}
	d.mustRemove(d.cluster.byHand)
	return binary, nil
}

// setUpRemote announces what it will do, then prepares the user's cluster. It returns the
// path of the replicas' binary.
func (d *demo) setUpRemote(ctx context.Context, temporary string) (binary string, err error) {
	there, c, err := connect(ctx, d.options, temporary, d.out)
	if err != nil {
		return "", err
	}
	if d.watched && !d.fast {
		if err := hesitate(ctx, d.out); err != nil {
			return "", err
		}
	}
	if binary, err = buildReplica(ctx, d.out, temporary); err != nil {
		return "", err
	}
	d.cluster = c // must be closed from now on
	d.mustRemove(c.byHand)
	return binary, there.prepare(ctx)
}

func (d *demo) createFoos(ctx context.Context) (err error) {
	if d.foos, err = newFoos(d.cluster.config, d.cluster.namespace, d.objects); err != nil {
		return err
	}
	defer d.out.Progress("")
	began, task := time.Now(), "creating "+plural(d.objects, "Foo")
	d.out.Progress(task)
	if err := d.foos.create(ctx, func(done int) {
		d.out.Progress(fmt.Sprintf("%s: %d", task, done))
	}); err != nil {
		return err
	}
	d.out.Say(ready(d.out, plural(d.objects, "Foo")+" created", time.Since(began)))
	d.board = newBoard(d.foos.keys(), ring.HashOf(ring.ByName))
	d.watcher = newWatcher(d.board)
	return nil
}

// ready returns a line which reports that a part of the preparation is done.
func ready(_ output, what string, took time.Duration) line {
	return text(good, "%s ", "ok").and(normal, "%s", what).and(faint, " (%.1f s)", took.Seconds())
}

// cleanUp stops the replicas and closes the cluster. It ignores the context of the run,
// which has ended; a user who does not want to wait can interrupt again.
func (d *demo) cleanUp() error {
	d.out.Close()
	if len(d.replicas) > 0 {
		d.out.Progress("cleaning up: replicas")
	}
	defer d.out.Progress("")
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var errs []error
	for _, r := range d.replicas {
		d.expect(r)
	}
	errs = append(errs, each(d.replicas, func(r *replica) error { return r.stop(ctx) })...)
	d.fail(nil) // ends the background goroutines, if they still run
	d.background.Wait()
	if d.watcher != nil {
		d.watcher.close()
	}
	if d.cluster != nil {
		d.out.Progress("cleaning up: " + d.cluster.title)
		errs = append(errs, d.cluster.close(context.Background()))
	}
	return errors.Join(errs...)
}

// each calls a function concurrently for all elements and returns the results.
func each[T any](all []T, do func(T) error) []error {
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for i, x := range all {
		wait.Go(func() { errs[i] = do(x) })
	}
	wait.Wait()
	return errs
}

// start starts a replica and begins to watch it.
func (d *demo) start(ctx context.Context, name string) (m int, err error) {
	r, err := startReplica(d.replica, name)
	if err != nil {
		return noOwner, err
	}
	m = d.board.add(name)
	d.replicas = append(d.replicas, r)
	d.background.Go(func() { d.watcher.watch(ctx, m, r) })
	d.background.Go(func() {
		if err := follow(ctx, d.board, m, r.record); err != nil {
			d.fail(err)
		}
	})
	d.background.Go(func() {
		<-r.exited // cleanUp makes sure that this happens
		if !d.isExpected(r) {
			d.board.end(m, killed, time.Time{})
			d.fail(r.failure())
		}
	})
	return m, nil
}

// expect marks the end of a replica as expected, so that it is not a failure.
func (d *demo) expect(r *replica) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expected[r] = true
}

func (d *demo) isExpected(r *replica) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.expected[r]
}

// mustRemove notes a command that removes what would remain if the demo ended now.
func (d *demo) mustRemove(command string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byHand = append(d.byHand, command)
}

// leftBehind returns the commands that clean up if the demo cannot.
func (d *demo) leftBehind() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.byHand)
}

// say sets the headline. On a terminal it appears above the log, otherwise in the log.
func (d *demo) say(h headline) {
	d.mu.Lock()
	d.now = h
	d.mu.Unlock()
	if !d.watched {
		d.out.Event(event{at: time.Since(d.began), text: h.text})
	}
}

// note adds an event to the log.
func (d *demo) note(m mark, format string, args ...any) {
	e := event{at: time.Since(d.began), mark: m, text: fmt.Sprintf(format, args...)}
	d.mu.Lock()
	d.log = append(d.log, e)
	d.mu.Unlock()
	d.out.Event(e)
}

// draw shows the current state until ctx ends.
func (d *demo) draw(ctx context.Context) {
	ticker := time.NewTicker(terminal.TickEvery)
	defer ticker.Stop()
	for {
		d.out.Draw(d.view(time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// view copies everything that is shown.
func (d *demo) view(now time.Time) view {
	v := view{
		title:   fmt.Sprintf("%s, one operator, on %s", plural(d.objects, "Foo"), d.cluster.title),
		elapsed: now.Sub(d.began),
	}
	d.board.fill(&v, now)
	d.mu.Lock()
	defer d.mu.Unlock()
	v.now, v.log = d.now, slices.Clone(d.log)
	if v.now.atMost > 0 {
		v.now.passed = now.Sub(v.now.since)
	}
	return v
}

// fill copies the state of the board into a view.
func (b *board) fill(v *view, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts := b.ownedBy()
	for i, m := range b.members {
		v.members = append(v.members, memberView{m.name, m.phase, counts[i], m.reconciles, m.rate.perSecond(now)})
	}
	v.unowned = counts[len(b.members)]
	for _, o := range b.objects {
		v.cells = append(v.cells, cell{owner: o.owner, fresh: now.Sub(o.worked) < flashTime})
	}
}
