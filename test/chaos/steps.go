// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/foos"
)

// step is a part of a fault. Steps act on the target of the fault, and leave it to the
// schedule to end what they have started. An error means that the fault could not be
// injected this time.
type step func(ctx context.Context, f *fault) error

// steps does one step after the other, until one fails.
func steps(all ...step) step {
	return func(ctx context.Context, f *fault) error {
		for _, s := range all {
			if err := s(ctx, f); err != nil {
				return err
			}
		}
		return nil
	}
}

// on does the steps with another target.
func (f *fault) on(ctx context.Context, target *replicaHarness, all ...step) error {
	other := *f
	other.target = target
	return steps(all...)(ctx, &other)
}

// onSurge does the steps on the surge replica.
func onSurge(all ...step) step {
	return func(ctx context.Context, f *fault) error { return f.on(ctx, f.surge, all...) }
}

// onEach does the steps on one replica after the other.
func onEach(all ...step) step {
	return func(ctx context.Context, f *fault) error {
		for _, r := range f.replicas {
			if err := f.on(ctx, r, all...); err != nil {
				return err
			}
		}
		return nil
	}
}

// act is a step that cannot fail.
func act(do func(f *fault)) step {
	return func(_ context.Context, f *fault) error {
		do(f)
		return nil
	}
}

// tolerate notes the error of a step that may fail under faults.
func tolerate(s step) step {
	return func(ctx context.Context, f *fault) error {
		if err := s(ctx, f); err != nil {
			f.note("%v", err)
		}
		return nil
	}
}

// Steps that wait.

func stay(d time.Duration) step { return stayBetween(d, d) }

func stayBetween(from, to time.Duration) step {
	return func(ctx context.Context, f *fault) error { return foos.Sleep(ctx, f.between(from, to)) }
}

// leases waits for a number of lease durations.
func leases(n float64) step {
	return func(ctx context.Context, f *fault) error { return foos.Sleep(ctx, f.leases(n)) }
}

func (a *environment) leases(n float64) time.Duration {
	return time.Duration(n * float64(a.options.LeaseDuration))
}

// atMostOneLease waits for a random time.
func atMostOneLease(ctx context.Context, f *fault) error {
	return foos.Sleep(ctx, f.between(0, f.leases(1)))
}

// ready waits until the process is on the ring, for at most two lease durations.
func ready(ctx context.Context, f *fault) error {
	if err := eventually(ctx, f.leases(2), func(ctx context.Context) error {
		p, err := f.target.running()
		if err != nil {
			return err
		}
		return p.Ready(ctx)
	}); err != nil {
		return fmt.Errorf("%s was not ready within %v", f.target.pod, f.leases(2))
	}
	return nil
}
