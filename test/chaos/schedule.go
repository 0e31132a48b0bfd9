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

	"github.com/tom-ludwig/operator-scaling/example-controller/record"
)

// hands is how many faults there are at a time.
const concurrency = 3

// scope is what a fault needs for itself while it lasts.
type scope uint8

const (
	anySeat        scope = iota // one replica
	aGateway                    // one replica that has a gateway
	aTunnel                     // one replica that has a tunnel
	theFleet                    // all replicas
	theServer                   // what all replicas depend on
	aSeatAndServer              // one replica with a gateway, and what all replicas depend on
	theVisitor                  // one replica with a gateway, and the visitor's
)

// kind is one kind of fault.
type kind struct {
	name  string
	scope scope
	// run injects it and returns when it is over. An error says that it could not be
	// injected this time.
	run func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error
}

// kinds are all faults there are.
var kinds = slices.Concat(processFaults, networkFaults, serverFaults, leaseFaults, crashFaults)

// Injection is one fault that was injected. Times are those of record.Now.
type Injection struct {
	Kind   string
	Target string // the Pod, or what else was hit
	From   int64
	To     int64
	Note   string // what came of it
	Failed bool   // it could not be injected

	visitor *replicaHarness // for faults of the scope theVisitor and theFleet
	toHit   bool            // it is a fault only if it has hit something
	hits    int
}

// note says what came of the fault.
func (i *Injection) note(format string, args ...any) {
	if i.Note != "" {
		i.Note += "; "
	}
	i.Note += fmt.Sprintf(format, args...)
}

// Targets that are no Pod.
const (
	servers   = "API server"
	everybody = "fleet"
)

// play injects every kind that was asked for once, in random order, and goes on
// until the time has come. Those that need the whole fleet come at the end of each
// round, one after the other; of the others there are several at a time.
func (a *environment) play(ctx context.Context, until time.Time) error {
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
		schedule := &schedule{cards: some, tried: map[string]int{}}
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
						schedule.again(k)
					}
					free()
				}
			})
		}
		wait.Wait()
		for _, k := range whole {
			for try := 0; try < tries && !enough(); try++ {
				if a.inject(ctx, k, &Injection{Target: everybody, visitor: a.surgeReplicas[0]}, nil) {
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

// shuffled returns the kinds that were asked for in random order.
func (a *environment) shuffled() []kind {
	cards := slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return !slices.Contains(a.options.Kinds, k.name) })
	a.mu.Lock()
	defer a.mu.Unlock()
	a.random.Shuffle(len(cards), func(i, j int) { cards[i], cards[j] = cards[j], cards[i] })
	return cards
}

// tries is how often a fault is tried in a round: another one, on the servers say, may
// be in its way.
const tries = 3

// schedule is what is still to be injected in a round.
type schedule struct {
	mu    sync.Mutex
	cards []kind
	tried map[string]int
}

// again puts a card back that could not be injected.
func (d *schedule) again(k kind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tried[k.name]++; d.tried[k.name] < tries {
		d.cards = append(d.cards, k)
	}
}

func (d *schedule) left() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.cards)
}

// take takes the first card for which all that it needs is free, and that with it.
// free is nil if there is none at this moment.
func (d *schedule) take(a *environment) (k kind, i *Injection, s *replicaHarness, free func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n, k := range d.cards {
		if i, s, free := a.take(k.scope); free != nil {
			d.cards = slices.Delete(d.cards, n, n+1)
			return k, i, s, free
		}
	}
	return kind{}, nil, nil, nil
}

// take takes what a fault needs, if all of it is free.
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
	if sc == theServer || sc == aSeatAndServer {
		complete = grab(&a.server)
	}
	if sc == theVisitor {
		n := slices.IndexFunc(a.surgeReplicas, func(v *replicaHarness) bool { return grab(&v.inUse) })
		if complete = n >= 0; complete {
			i.visitor = a.surgeReplicas[n]
		}
	}
	if sc != theServer && complete {
		first := a.draw(len(a.replicas))
		order := append(slices.Clone(a.replicas[first:]), a.replicas[:first]...)
		n := slices.IndexFunc(order, func(s *replicaHarness) bool {
			fits := sc == anySeat || (sc == aTunnel) == (s.tunnel != nil)
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

// inject injects a fault and leaves its target alone for a moment. It reports whether
// the fault could be injected.
func (a *environment) inject(ctx context.Context, k kind, i *Injection, s *replicaHarness) bool {
	i.Kind, i.From = k.name, record.Now()
	a.mu.Lock()
	a.injections = append(a.injections, i)
	a.mu.Unlock()
	a.say("%-12s %s", i.Target, k.name)
	err := k.run(ctx, a, s, i)
	if err == nil && i.toHit && i.hits == 0 {
		err = errors.New("nothing was hit")
	}
	if err != nil && ctx.Err() == nil {
		i.Failed = true
		i.note("%v", err)
		a.say("%-12s %s: %v", i.Target, k.name, err)
	}
	if s != nil {
		s.clearFaults()
	}
	i.To = record.Now()
	_ = a.sleep(ctx, a.between(0, a.options.LeaseDuration/2))
	return !i.Failed
}

// healAll takes all faults away and fills the replicas, for the end of a run.
func (a *environment) healAll(ctx context.Context) error {
	a.etcdLine.Set(cableOK)
	_ = a.cp.Etcd.Resume() // it may not be paused
	if a.cp.APIServer.PID() == 0 {
		if err := a.cp.APIServer.Start(ctx); err != nil {
			return err
		}
	}
	_ = a.cp.APIServer.Resume()
	var errs []error
	for _, s := range a.everySeat() {
		s.clearFaults()
	}
	for _, v := range a.surgeReplicas {
		if err := v.leave(); err != nil { // which it may, after what was done to it
			a.say("%s: %v", v.pod, err)
		}
	}
	for _, s := range a.replicas {
		p, err := s.present()
		s.mu.Lock()
		occupied := s.occupied
		s.mu.Unlock()
		switch {
		case !occupied:
			errs = append(errs, s.occupy(ctx, true))
		case err == nil:
			_ = p.Resume() // it may not be paused
		}
	}
	return errors.Join(errs...)
}
