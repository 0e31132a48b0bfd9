// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/foos"
)

// kill kills the process; the harness restarts it.
func kill(_ context.Context, f *fault) error {
	p, err := f.target.running()
	if err == nil {
		p.Kill()
	}
	return err
}

// killPod kills the process for good, as if its node had failed.
var killPod = act(func(f *fault) {
	if p := f.target.disableRestart(); p != nil {
		p.Kill()
	}
})

func newPod(ctx context.Context, f *fault) error { return f.target.startPod(ctx) }

func restart(_ context.Context, f *fault) error {
	f.target.clearFaults()
	return f.target.start()
}

var stop = tolerate(func(_ context.Context, f *fault) error {
	began := time.Now()
	err := f.target.stop()
	f.note("%s exited after %v", f.target.pod, time.Since(began).Round(time.Millisecond))
	return err
})

// terminate sends SIGTERM and does not wait.
var terminate = tolerate(func(_ context.Context, f *fault) error { return f.target.disableRestart().Terminate() })

// exited waits for the end of a process after terminate. A second signal would end it
// immediately.
var exited = act(func(f *fault) {
	p := f.target.disableRestart()
	select {
	case <-p.Exited():
		f.note("the surge replica exited with code %d", p.ExitCode())
	case <-time.After(f.leases(1) + longestDrain):
		f.note("the surge replica did not exit")
		p.Kill()
	}
})

// stopMustFail stops a process that cannot drain.
var stopMustFail = act(func(f *fault) {
	p := f.target.disableRestart()
	_ = p.Stop() // the exit code is checked below
	f.note("exit code %d", p.ExitCode())
	if p.ExitCode() == 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.result.breach("V1", "%s was stopped during a write that did not end, and exited with code 0", p)
	}
})

// restartWith replaces the Pod by one whose process has more flags, until the fault ends.
func restartWith(flags ...string) step {
	return func(ctx context.Context, f *fault) error {
		err := f.target.stop()
		f.target.mu.Lock()
		f.target.flags = flags
		f.target.mu.Unlock()
		return errors.Join(err, f.target.startPod(ctx))
	}
}

func restartWithLongLease(ctx context.Context, f *fault) error {
	return restartWith("--lease-duration="+f.leases(2).String())(ctx, f)
}

// killMost kills all replicas but two at one moment.
func killMost(ctx context.Context, f *fault) error {
	rest, dead := f.replicas[:2], f.replicas[2:]
	for _, r := range rest {
		if err := f.on(ctx, r, restartWith("--kube-api-qps=5", "--kube-api-burst=10"), tolerate(ready)); err != nil {
			return err
		}
	}
	for _, r := range dead {
		_ = f.on(ctx, r, killPod) // cannot fail
	}
	if err := steps(leases(2.5), restartStopped)(ctx, f); err != nil {
		return err
	}
	for _, r := range rest {
		if err := f.on(ctx, r, restartWith(), tolerate(ready)); err != nil {
			return err
		}
	}
	return nil
}

// stopHalf stops half of the replicas at once.
var stopHalf = act(func(f *fault) {
	half := f.replicas[:len(f.replicas)/2]
	errs := make([]error, len(half))
	var all sync.WaitGroup
	for n, r := range half {
		all.Go(func() { errs[n] = r.stop() })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		f.note("%v", err)
	}
})

// restartStopped starts a new Pod for each replica that was stopped.
func restartStopped(ctx context.Context, f *fault) error {
	for _, r := range f.replicas {
		r.mu.Lock()
		stopped := !r.restart
		r.mu.Unlock()
		if stopped {
			if err := r.startPod(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// pauser is a process or a server.
type pauser interface {
	Pause() error
	Resume() error
}

func process(f *fault) (pauser, error)   { return f.target.running() }
func apiServer(f *fault) (pauser, error) { return f.cp.APIServer, nil }
func etcd(f *fault) (pauser, error)      { return f.cp.Etcd, nil }

// pause pauses a process or a server for a number of lease durations.
func pause(which func(*fault) (pauser, error), n float64) step {
	return func(ctx context.Context, f *fault) error {
		p, err := which(f)
		if err != nil {
			return err
		}
		if err := p.Pause(); err != nil {
			return err
		}
		f.note("for %v", f.leases(n).Round(100*time.Millisecond))
		err = foos.Sleep(ctx, f.leases(n))
		return errors.Join(err, p.Resume())
	}
}

// duplicate starts a second process with the identity of a running one, and ends one of
// the two. Meanwhile it does the steps.
func duplicate(otherPod bool, meanwhile ...step) step {
	return func(ctx context.Context, f *fault) error {
		f.target.mu.Lock()
		uid := f.target.uid
		f.target.mu.Unlock()
		if otherPod {
			uid = "00000000-0000-0000-0000-000000000000"
		}
		second, err := f.target.startProcess(uid)
		if err != nil {
			return err
		}
		defer second.Kill()
		if err := steps(leases(0.5), steps(meanwhile...), leases(0.5))(ctx, f); err != nil {
			return err
		}
		if f.draw(2) == 0 {
			f.note("the second process stops")
			if err := second.Stop(); err != nil {
				f.note("%v", err)
			}
			return nil
		}
		f.note("the first process is killed") // and a third one is started
		return steps(tolerate(kill), leases(1))(ctx, f)
	}
}
