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
const hands = 3

// scope is what a fault needs for itself while it lasts.
type scope uint8

const (
	anySeat        scope = iota // one seat
	aGateway                    // one seat that has a gateway
	aTunnel                     // one seat that has a tunnel
	theFleet                    // all seats
	theServer                   // what all seats depend on
	aSeatAndServer              // one seat with a gateway, and what all seats depend on
	theVisitor                  // one seat with a gateway, and the visitor's
)

// kind is one kind of fault.
type kind struct {
	name  string
	scope scope
	// run injects it and returns when it is over. An error says that it could not be
	// injected this time.
	run func(ctx context.Context, a *arena, s *seat, i *Injection) error
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

	visitor *seat // for faults of the scope theVisitor and theFleet
	toHit   bool  // it is a fault only if it has hit something
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
func (a *arena) play(ctx context.Context, until time.Time) error {
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
		deck := &deck{cards: some, tried: map[string]int{}}
		var wait sync.WaitGroup
		for range hands {
			wait.Go(func() {
				for !enough() && deck.left() > 0 {
					k, i, s, free := deck.take(a)
					if free == nil {
						_ = a.sleep(ctx, 50*time.Millisecond)
						continue
					}
					if !a.inject(ctx, k, i, s) {
						deck.again(k)
					}
					free()
				}
			})
		}
		wait.Wait()
		for _, k := range whole {
			for try := 0; try < tries && !enough(); try++ {
				if a.inject(ctx, k, &Injection{Target: everybody, visitor: a.visitors[0]}, nil) {
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
func (a *arena) shuffled() []kind {
	cards := slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return !slices.Contains(a.options.Kinds, k.name) })
	a.mu.Lock()
	defer a.mu.Unlock()
	a.random.Shuffle(len(cards), func(i, j int) { cards[i], cards[j] = cards[j], cards[i] })
	return cards
}

// tries is how often a fault is tried in a round: another one, on the servers say, may
// be in its way.
const tries = 3

// deck is what is still to be injected in a round.
type deck struct {
	mu    sync.Mutex
	cards []kind
	tried map[string]int
}

// again puts a card back that could not be injected.
func (d *deck) again(k kind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tried[k.name]++; d.tried[k.name] < tries {
		d.cards = append(d.cards, k)
	}
}

func (d *deck) left() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.cards)
}

// take takes the first card for which all that it needs is free, and that with it.
// free is nil if there is none at this moment.
func (d *deck) take(a *arena) (k kind, i *Injection, s *seat, free func()) {
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
func (a *arena) take(sc scope) (i *Injection, s *seat, free func()) {
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
		n := slices.IndexFunc(a.visitors, func(v *seat) bool { return grab(&v.inUse) })
		if complete = n >= 0; complete {
			i.visitor = a.visitors[n]
		}
	}
	if sc != theServer && complete {
		first := a.draw(len(a.seats))
		order := append(slices.Clone(a.seats[first:]), a.seats[:first]...)
		n := slices.IndexFunc(order, func(s *seat) bool {
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
func (a *arena) inject(ctx context.Context, k kind, i *Injection, s *seat) bool {
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
		s.heal()
	}
	i.To = record.Now()
	_ = a.sleep(ctx, a.between(0, a.options.LeaseDuration/2))
	return !i.Failed
}

// healAll takes all faults away and fills the seats, for the end of a run.
func (a *arena) healAll(ctx context.Context) error {
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
		s.heal()
	}
	for _, v := range a.visitors {
		if err := v.leave(); err != nil { // which it may, after what was done to it
			a.say("%s: %v", v.pod, err)
		}
	}
	for _, s := range a.seats {
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
