// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
	"github.com/tom-ludwig/operator-scaling/test/foos"
)

// set sets a rule on the gateway.
func set(which faultproxy.Class, rule faultproxy.Rule) step {
	return act(func(f *fault) { f.target.gateway.Set(which, rule) })
}

// requests sets a rule on the gateway for a number of lease durations. It must have an effect.
func requests(which faultproxy.Class, rule faultproxy.Rule, n float64) step {
	return mustHit(which, rule, set(which, rule), leases(n))
}

// requestsWhileMoving sets a rule on the gateway while the surge replica joins, and again
// while it leaves. It must have an effect.
func requestsWhileMoving(which faultproxy.Class, rule faultproxy.Rule) step {
	rules := steps(set(which, rule), leases(0.5), set(which, faultproxy.Rule{}))
	// A process takes about a second to join.
	return mustHit(which, rule, onSurge(newPod), stay(500*time.Millisecond), rules, onSurge(ready, terminate), rules, onSurge(exited))
}

// mustHit fails if a rule has no effect during the steps.
func mustHit(which faultproxy.Class, rule faultproxy.Rule, all ...step) step {
	return func(ctx context.Context, f *fault) error {
		before := f.hits(which, rule)
		if err := steps(all...)(ctx, f); err != nil {
			return err
		}
		f.note("%d hit", f.hits(which, rule)-before)
		if f.hits(which, rule) == before {
			return errors.New("nothing was hit")
		}
		return nil
	}
}

func (f *fault) hits(which faultproxy.Class, rule faultproxy.Rule) int {
	return f.target.gateway.Counts().Of(which, rule.Action)
}

// hit sets a rule on the gateway, and waits until it has had an effect.
func hit(which faultproxy.Class, rule faultproxy.Rule) step {
	return func(ctx context.Context, f *fault) error {
		f.target.gateway.Set(which, rule)
		before := f.hits(which, rule) // requests in flight do not count
		for end := time.Now().Add(f.leases(1)); f.hits(which, rule) == before; {
			if time.Now().After(end) {
				return fmt.Errorf("%q had no effect on a %v within %v", rule, which, f.leases(1))
			}
			if err := foos.Sleep(ctx, 2*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
}

// surgeJoins starts the surge replica and waits until it has a Lease, so that its member is
// about to join.
func surgeJoins(ctx context.Context, f *fault) error {
	if err := f.surge.startPod(ctx); err != nil {
		return err
	}
	return eventually(ctx, f.leases(2), func(ctx context.Context) error {
		_, err := f.kube.CoordinationV1().Leases(namespace).Get(ctx, leasePrefix+f.surge.pod, metav1.GetOptions{})
		return err
	})
}

var surgeLeaves = onSurge(newPod, ready, stay(time.Second), terminate)

// crash kills the process when a rule has taken effect. Afterwards, delayed requests arrive.
func crash(which faultproxy.Class, rule faultproxy.Rule) step {
	clearFaults := act(func(f *fault) {
		f.note("killed when a %v was hit", which)
		f.target.clearFaults()
	})
	return steps(hit(which, rule), kill, stay(time.Second), clearFaults, leases(0.5), onSurge(killPod))
}

// slowWatches delays the Lease watches of the replicas with a gateway, each by a different
// time.
func slowWatches(least time.Duration) step {
	return act(func(f *fault) {
		for n, r := range f.replicas {
			if r.gateway != nil {
				r.gateway.Set(faultproxy.LeaseWatch, delayed(least+time.Duration(n)*50*time.Millisecond))
			}
		}
	})
}

// joinAndLeave makes one surge replica join while another one leaves. Its effect depends on
// timing: it repeats this until claims were contested, but not forever.
func joinAndLeave(ctx context.Context, f *fault) error {
	leaving, coming := f.surgeReplicas[0], f.surgeReplicas[1]
	err := leaving.startPod(ctx)
	before := f.counted()[contested]
	for n := 0; err == nil && (n < 4 || n < 16 && f.counted()[contested] == before); n++ {
		_ = f.on(ctx, leaving, tolerate(ready))
		if err = f.on(ctx, coming, newPod, stayBetween(100*time.Millisecond, 700*time.Millisecond)); err == nil {
			err = f.on(ctx, leaving, stop)
		}
		leaving, coming = coming, leaving
		f.ask(ctx, time.Second)
	}
	return err
}

// cable sets the state of the tunnel.
func cable(state faultproxy.Cable) step {
	return act(func(f *fault) { f.target.tunnel.Set(state) })
}

var cutCable = act(func(f *fault) { f.target.tunnel.Cut() })
