// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// concurrency is the number of faults that are injected at the same time.
const concurrency = 3

// scope is what a fault needs exclusively while it lasts.
type scope uint8

const (
	anyReplica        scope = iota // one replica
	aGateway                       // one replica that has a gateway
	aTunnel                        // one replica that has a tunnel
	theFleet                       // all replicas
	theServer                      // what all replicas depend on
	aReplicaAndServer              // one replica with a gateway, and what all replicas depend on
	aSurgeReplica                  // one replica with a gateway, and one surge replica
)

// kind is one kind of fault.
type kind struct {
	name  string
	scope scope
	// run injects the fault and returns when it is over. An error means that it could not
	// be injected this time.
	run func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error
}

// kinds has all faults.
var kinds = slices.Concat(processFaults, networkFaults, serverFaults, leaseFaults, crashFaults)

// Injection is one fault that was injected. Times are those of worklog.Now.
type Injection struct {
	Kind   string
	Target string // the Pod, or another target
	From   int64
	To     int64
	Note   string // its effects
	Failed bool   // it could not be injected

	surge *replicaHarness // for faults of the scopes aSurgeReplica and theFleet
	toHit bool            // it counts only if it has hit something
	hits  int
}

// note adds a note about the effects of the fault.
func (i *Injection) note(format string, args ...any) {
	if i.Note != "" {
		i.Note += "; "
	}
	i.Note += fmt.Sprintf(format, args...)
}

// Targets that are not Pods.
const (
	servers    = "API server"
	wholeFleet = "fleet"
)

// runSchedule injects every requested kind once, in random order, and repeats this until
// the given time. Faults that need the whole fleet come at the end of each round, one
// after the other; the others run concurrently.
func (a *environment) runSchedule(ctx context.Context, until time.Time) error {
	for round := 0; round == 0 || time.Now().Before(until); round++ {
		enough := func() bool { return ctx.Err() != nil || round > 0 && time.Now().After(until) }
		var some, whole []kind
		for _, k := range a.shuffled() {
			if k.scope == theFleet {
				whole = append(whole, k)
			} else {
				some = append(some, k)
			}
		}
		schedule := &schedule{pending: some, tried: map[string]int{}}
		var wait sync.WaitGroup
		for range concurrency {
			wait.Go(func() {
				for !enough() && schedule.left() > 0 {
					k, i, s, free := schedule.take(a)
					if free == nil {
						_ = a.sleep(ctx, 50*time.Millisecond)
						continue
					}
					if !a.inject(ctx, k, i, s) {
						schedule.putBack(k)
					}
					free()
				}
			})
		}
		wait.Wait()
		for _, k := range whole {
			for try := 0; try < tries && !enough(); try++ {
				if a.inject(ctx, k, &Injection{Target: wholeFleet, surge: a.surgeReplicas[0]}, nil) {
					break
				}
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// shuffled returns the requested kinds in random order.
func (a *environment) shuffled() []kind {
	pending := slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return !slices.Contains(a.options.Kinds, k.name) })
	a.mu.Lock()
	defer a.mu.Unlock()
	a.random.Shuffle(len(pending), func(i, j int) { pending[i], pending[j] = pending[j], pending[i] })
	return pending
}

// tries is how often a fault is tried in a round, because another fault, for example on
// the servers, may prevent it.
const tries = 3

// schedule has the faults that are still to be injected in a round.
type schedule struct {
	mu      sync.Mutex
	pending []kind
	tried   map[string]int
}

// putBack returns a fault that could not be injected to the schedule.
func (d *schedule) putBack(k kind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tried[k.name]++; d.tried[k.name] < tries {
		d.pending = append(d.pending, k)
	}
}

func (d *schedule) left() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending)
}

// take takes the first fault for which everything that it needs is free, and reserves
// that. free is nil if there is no such fault at the moment.
func (d *schedule) take(a *environment) (k kind, i *Injection, s *replicaHarness, free func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n, k := range d.pending {
		if i, s, free := a.take(k.scope); free != nil {
			d.pending = slices.Delete(d.pending, n, n+1)
			return k, i, s, free
		}
	}
	return kind{}, nil, nil, nil
}

// take reserves what a fault needs, if all of it is free.
func (a *environment) take(sc scope) (i *Injection, s *replicaHarness, free func()) {
	var taken []*sync.Mutex
	grab := func(m *sync.Mutex) bool {
		if !m.TryLock() {
			return false
		}
		taken = append(taken, m)
		return true
	}
	release := func() {
		for _, m := range taken {
			m.Unlock()
		}
	}
	i = &Injection{Target: servers}
	complete := true
	if sc == theServer || sc == aReplicaAndServer {
		complete = grab(&a.server)
	}
	if sc == aSurgeReplica {
		n := slices.IndexFunc(a.surgeReplicas, func(v *replicaHarness) bool { return grab(&v.inUse) })
		if complete = n >= 0; complete {
			i.surge = a.surgeReplicas[n]
		}
	}
	if sc != theServer && complete {
		first := a.draw(len(a.replicas))
		order := append(slices.Clone(a.replicas[first:]), a.replicas[:first]...)
		n := slices.IndexFunc(order, func(s *replicaHarness) bool {
			fits := sc == anyReplica || (sc == aTunnel) == (s.tunnel != nil)
			return fits && grab(&s.inUse)
		})
		if complete = n >= 0; complete {
			s = order[n]
			i.Target = s.pod
		}
	}
	if !complete {
		release()
		return nil, nil, nil
	}
	return i, s, release
}

// inject injects a fault, then leaves its target alone for a short time. It reports
// whether the fault could be injected.
func (a *environment) inject(ctx context.Context, k kind, i *Injection, s *replicaHarness) bool {
	i.Kind, i.From = k.name, worklog.Now()
	a.mu.Lock()
	a.injections = append(a.injections, i)
	a.mu.Unlock()
	a.logf("%-12s %s", i.Target, k.name)
	err := k.run(ctx, a, s, i)
	if err == nil && i.toHit && i.hits == 0 {
		err = errors.New("nothing was hit")
	}
	if err != nil && ctx.Err() == nil {
		i.Failed = true
		i.note("%v", err)
		a.logf("%-12s %s: %v", i.Target, k.name, err)
	}
	if s != nil {
		s.clearFaults()
	}
	i.To = worklog.Now()
	_ = a.sleep(ctx, a.between(0, a.options.LeaseDuration/2))
	return !i.Failed
}

// clearAllFaults removes all faults and starts all replicas, for the end of a run.
func (a *environment) clearAllFaults(ctx context.Context) error {
	a.etcdLine.Set(cableOK)
	_ = a.cp.Etcd.Resume() // it may not be paused
	if a.cp.APIServer.PID() == 0 {
		if err := a.cp.APIServer.Start(ctx); err != nil {
			return err
		}
	}
	_ = a.cp.APIServer.Resume()
	var errs []error
	for _, s := range a.allReplicas() {
		s.clearFaults()
	}
	for _, v := range a.surgeReplicas {
		if err := v.stop(); err != nil { // possible after a fault
			a.logf("%s: %v", v.pod, err)
		}
	}
	for _, s := range a.replicas {
		p, err := s.running()
		s.mu.Lock()
		restart := s.restart
		s.mu.Unlock()
		switch {
		case !restart:
			errs = append(errs, s.startPod(ctx, true))
		case err == nil:
			_ = p.Resume() // it may not be paused
		}
	}
	return errors.Join(errs...)
}
