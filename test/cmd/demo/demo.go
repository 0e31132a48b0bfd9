// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/foos"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

const (
	// ringName is the name of the operator whose replicas are shown.
	ringName  = "foo-operator"
	drawEvery = 100 * time.Millisecond
	// stopTime is how long a replica may take to stop after SIGTERM, cleanUpTime if the run has ended early.
	stopTime    = 30 * time.Second
	cleanUpTime = 3 * time.Second
)

// demo is one run.
type demo struct {
	options
	out     *display
	cluster *cluster
	foos    foos.Foos
	names   []string       // of the Foos
	config  replica.Config // what all replicas have in common
	board   *board

	// watching has the goroutines that watch the replicas; fail ends the run.
	watching sync.WaitGroup
	fail     context.CancelCauseFunc

	began time.Time // of the part that is drawn

	mu    sync.Mutex // guards what follows
	now   headline
	since time.Time // when the headline was set
}

// newDemo returns a demo that does nothing yet.
func newDemo(o options, out *display) *demo {
	return &demo{options: o, out: out, board: newBoard("", nil)}
}

// run runs the whole demo. err is what went wrong, left is what could not be cleaned up.
func (d *demo) run(ctx context.Context) (err, left error) {
	ctx, d.fail = context.WithCancelCause(ctx)
	defer d.fail(nil)
	temporary, err := os.MkdirTemp("", "operator-scaling-demo-")
	if err != nil {
		return err, nil
	}
	defer func() { left = errors.Join(left, os.RemoveAll(temporary)) }() // last: until then replicas write to it
	// A build that is interrupted leaves its files behind.
	if err := os.Setenv("GOTMPDIR", temporary); err != nil {
		return err, nil
	}
	if err = d.setUp(ctx, temporary); err == nil {
		err = d.play(ctx)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx) // other errors are consequences of it
	}
	return err, d.cleanUp()
}

// setUp opens the cluster, builds the replica, and creates the objects.
func (d *demo) setUp(ctx context.Context, temporary string) (err error) {
	// The Pods do not exist, so they must not have a UID: the Leases would be garbage collected.
	d.config = replica.Config{Dir: temporary, Ring: ringName, Args: []string{"--lease-duration=" + d.lease.String()}}
	if d.keep != "" {
		d.config.Dir = d.keep
		if err := os.Mkdir(d.keep, 0o755); err != nil {
			return fmt.Errorf("-keep: %w", err)
		}
	}
	c := &cluster{}
	if d.kubeconfig == "" {
		err = c.start(ctx, d.out)
	} else {
		err = c.connect(ctx, d.kubeconfig, filepath.Join(temporary, "kubeconfig"), d.out)
	}
	if err != nil {
		return err
	}
	d.cluster = c // must be closed from now on
	d.config.Kubeconfig, d.config.Namespace, d.config.Watch = c.kubeconfig, c.namespace, c.namespace
	if err := d.out.task("building the replica", func() (err error) {
		d.config.Binary, err = replica.Build(ctx, temporary, "-ldflags=-s -w")
		return err
	}); err != nil {
		return err
	}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	if d.foos, err = foos.In(c.namespace, c.config); err != nil {
		return err
	}
	for i := range d.objects {
		d.names = append(d.names, fmt.Sprintf("foo-%03d", i))
	}
	d.board = newBoard(c.namespace, d.names)
	return d.out.task("creating "+plural(d.objects, "Foo"), func() error {
		for _, name := range d.names {
			if err := d.foos.Add(ctx, name); err != nil {
				return fmt.Errorf("create Foo %s: %w", name, err)
			}
		}
		return nil
	})
}

// cleanUp stops the replicas and closes the cluster. It does not use the context of the run, which has ended; a user who does
// not want to wait can interrupt again.
func (d *demo) cleanUp() error {
	defer d.out.progress("")
	d.out.progress("cleaning up")
	_ = d.stopAll(cleanUpTime) // when it returns, they have ended
	d.fail(nil)
	d.watching.Wait()
	if d.cluster == nil {
		return nil
	}
	return d.cluster.close()
}

// stopAll stops all replicas, and kills those that have not stopped in time. It returns when they have ended.
func (d *demo) stopAll(atMost time.Duration) error {
	errs := make([]error, len(d.board.members))
	var wait sync.WaitGroup
	for i, m := range d.board.members {
		m.expected.Store(true)
		wait.Go(func() {
			defer time.AfterFunc(atMost, m.Kill).Stop()
			if err := m.Stop(); !errors.Is(err, replica.ErrEnded) {
				errs[i] = err
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// start starts a replica and begins to watch it.
func (d *demo) start(ctx context.Context, name string) error {
	config := d.config
	config.Pod = name
	p, err := replica.Start(config)
	if err != nil {
		return err
	}
	m := d.board.add(name, p)
	d.watching.Go(func() {
		for !m.Ended() {
			asking, cancel := context.WithTimeout(ctx, time.Second)
			if report, err := m.Report(asking); err == nil { // otherwise it owns what it owned when it last responded
				// To decode all records each time would be slow.
				records, _ := os.ReadFile(m.RecordFile()) // missing: none
				d.board.observe(m, report, bytes.Count(records, []byte(`"e":"end"`)))
			}
			cancel()
			select {
			case <-ctx.Done():
				return
			case <-m.Exited():
			case <-time.After(askEvery):
			}
		}
		if m.ExitCode() == 0 {
			d.board.enter(m, stopped)
		} else {
			d.board.enter(m, killed)
		}
		if !m.expected.Load() {
			d.fail(fmt.Errorf("%s exited unexpectedly (code %d); end of its log:\n%s", name, m.ExitCode(), m.Tail(12)))
		}
	})
	return nil
}

// check checks what the replicas have recorded so far. final has the final version of each object, if it is known.
func (d *demo) check(final map[string]string) (*worklog.Report, error) {
	var all []worklog.Process
	for _, m := range d.board.members {
		h, err := m.History()
		if err != nil {
			return nil, err
		}
		h.Name = m.name
		all = append(all, h)
	}
	return worklog.Check(all, worklog.Options{Final: final}), nil
}

// announce sets the headline. On a terminal it appears in the block, otherwise as a line.
func (d *demo) announce(h headline) {
	d.mu.Lock()
	d.now, d.since = h, time.Now()
	d.mu.Unlock()
	if d.out.size == nil {
		d.note(faint, "·", h.text)
	}
}

// note writes an event.
func (d *demo) note(s style, mark, text string) {
	d.out.say(paint(faint, clock(time.Since(d.began))) + " " + paint(s, mark) + " " + text)
}

// draw shows the current state until ctx ends: the table on a terminal, otherwise a line each second.
func (d *demo) draw(ctx context.Context) {
	for second := -1; foos.Sleep(ctx, drawEvery) == nil; {
		switch v, now := d.view(), int(time.Since(d.began).Seconds()); {
		case d.out.size != nil:
			width, _ := d.out.size()
			d.out.draw(v.table(width)...)
		case now != second:
			second = now
			d.out.say(v.plain())
		}
	}
	d.out.draw()
}

// view copies everything that is shown.
func (d *demo) view() view {
	v := view{title: plural(d.objects, "Foo") + ", one operator, on " + d.cluster.title, elapsed: time.Since(d.began)}
	v.members, v.unowned = d.board.rows()
	d.mu.Lock()
	defer d.mu.Unlock()
	v.now = d.now
	v.now.passed = time.Since(d.since)
	return v
}
