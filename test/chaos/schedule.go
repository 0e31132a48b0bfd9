// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
	"github.com/tom-ludwig/operator-scaling/test/foos"
)

const (
	// concurrency is the number of faults that are injected at the same time.
	concurrency = 3
	// tries is how often a fault is tried in a round, because another fault, for example
	// on the servers, may prevent it.
	tries = 3
)

// needs is what a fault needs for itself while it lasts.
type needs uint8

const (
	aReplica      needs = 1 << iota // one replica
	viaGateway                      // which has a gateway
	viaTunnel                       // which has a tunnel
	aSurge                          // a surge replica
	theServer                       // what all replicas depend on
	allReplicas                     // and both surge replicas
	theFleet      = allReplicas | theServer
	aGateway      = aReplica | viaGateway
	aTunnel       = aReplica | viaTunnel
	aSurgeReplica = aGateway | aSurge
)

// Targets that are not Pods.
const (
	servers    = "API server"
	wholeFleet = "fleet"
)

// Injection is one fault that was injected. Times are those of worklog.Now.
type Injection struct {
	Kind   string
	Target string // the Pod, or another target
	From   int64
	To     int64
	Note   string // its effects
	Failed bool   // it could not be injected
}

// fault is a fault that is being injected.
type fault struct {
	*environment
	kind      kind
	injection *Injection
	target    *replicaHarness   // nil: the servers, or the fleet
	surge     *replicaHarness   // nil: none
	reserved  []*replicaHarness // all that no other fault may use
}

// note adds a note about the effects of the fault.
func (f *fault) note(format string, args ...any) {
	if f.injection.Note != "" {
		f.injection.Note += "; "
	}
	f.injection.Note += fmt.Sprintf(format, args...)
}

// runSchedule injects every requested kind once, in random order, and repeats this until
// the given time. Faults that need the whole fleet come at the end of each round, one
// after the other; the others run concurrently.
func (a *environment) runSchedule(ctx context.Context, until time.Time) error {
	for round := 0; ctx.Err() == nil && (round == 0 || time.Now().Before(until)); round++ {
		a.runRound(ctx, func() bool { return ctx.Err() != nil || round > 0 && time.Now().After(until) })
	}
	return context.Cause(ctx)
}

func (a *environment) runRound(ctx context.Context, enough func() bool) {
	pending := slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return !slices.Contains(a.options.Kinds, k.name) })
	a.mu.Lock()
	a.random.Shuffle(len(pending), func(i, j int) { pending[i], pending[j] = pending[j], pending[i] })
	a.mu.Unlock()
	slices.SortStableFunc(pending, func(x, y kind) int { return int(x.needs&allReplicas) - int(y.needs&allReplicas) })
	ended := make(chan *fault)
	tried := map[string]int{}
	for running := 0; ; {
		var next *fault
		for n := 0; n < len(pending) && next == nil && running < concurrency && !enough(); n++ {
			if next = a.reserve(pending[n]); next != nil {
				pending = slices.Delete(pending, n, n+1)
			}
		}
		if next != nil {
			running++
			go func() {
				a.inject(ctx, next)
				ended <- next
			}()
			continue
		}
		if running == 0 {
			return
		}
		f := <-ended
		running--
		f.use(false)
		if tried[f.kind.name]++; f.injection.Failed && tried[f.kind.name] < tries {
			pending = append(pending, f.kind)
		}
	}
}

// reserve returns a fault with everything that it needs; nil if something is not free.
func (a *environment) reserve(k kind) *fault {
	f := &fault{environment: a, kind: k, injection: &Injection{Kind: k.name, Target: servers}}
	if k.needs&theServer != 0 && a.serversInUse {
		return nil
	}
	find := func(among []*replicaHarness) *replicaHarness {
		first := a.draw(len(among))
		for n := range among {
			r := among[(first+n)%len(among)]
			if !r.inUse && (k.needs&viaGateway == 0 || r.gateway != nil) && (k.needs&viaTunnel == 0 || r.tunnel != nil) {
				f.reserved = append(f.reserved, r)
				return r
			}
		}
		return nil
	}
	if k.needs&allReplicas != 0 {
		f.reserved, f.surge, f.injection.Target = a.allReplicas(), a.surgeReplicas[0], wholeFleet
		if slices.ContainsFunc(f.reserved, func(r *replicaHarness) bool { return r.inUse }) {
			return nil
		}
	}
	if k.needs&aSurge != 0 {
		if f.surge = find(a.surgeReplicas); f.surge == nil {
			return nil
		}
	}
	if k.needs&aReplica != 0 {
		if f.target = find(a.replicas); f.target == nil {
			return nil
		}
		f.injection.Target = f.target.pod
	}
	f.use(true)
	return f
}

// use marks everything that the fault needs as in use, or as free.
func (f *fault) use(inUse bool) {
	for _, r := range f.reserved {
		r.inUse = inUse
	}
	if f.kind.needs&theServer != 0 {
		f.serversInUse = inUse
	}
}

// inject injects a fault and clears it, then leaves its target alone for a short time.
func (a *environment) inject(ctx context.Context, f *fault) {
	i := f.injection
	i.From = worklog.Now()
	a.mu.Lock()
	a.result.Injections = append(a.result.Injections, i)
	a.mu.Unlock()
	a.logf("%-12s %s", i.Target, i.Kind)
	err := f.kind.step(ctx, f)
	if err != nil && ctx.Err() == nil {
		i.Failed = true
		f.note("%v", err)
		a.logf("%-12s %s: %v", i.Target, i.Kind, err)
	}
	for _, r := range f.reserved {
		if slices.Contains(a.surgeReplicas, r) {
			if err := r.stop(); err != nil {
				f.note("%v", err)
			}
		}
		r.clearFaults()
	}
	i.To = worklog.Now()
	_ = foos.Sleep(ctx, a.between(0, a.options.LeaseDuration/2))
}

// clearAllFaults removes all faults and starts all replicas, for the end of a run.
func (a *environment) clearAllFaults(ctx context.Context) error {
	a.etcdLine.Set(faultproxy.Cable{})
	_ = a.cp.Etcd.Resume() // it may not be paused
	if a.cp.APIServer.PID() == 0 {
		if err := a.cp.APIServer.Start(ctx); err != nil {
			return err
		}
	}
	_ = a.cp.APIServer.Resume()
	for _, r := range a.replicas {
		r.clearFaults()
		if p, err := r.running(); err == nil {
			_ = p.Resume() // it may not be paused
		}
	}
	return restartStopped(ctx, &fault{environment: a})
}
