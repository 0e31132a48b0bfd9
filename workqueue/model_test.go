// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"flag"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

var seeds = flag.Int("seeds", 10, "number of schedules that TestQ1Q2Q3_Model runs")

// TestQ1Q2Q3_Model runs seeded schedules: workers, adders, and a loop that releases partitions
// ("publish, Drain, wait for InFlight, release"), activates them again, fences the member and
// lifts the fence. No worker may hold an item while its point is released or, if work stops at
// the fence, while the member is fenced. Every item that was added is handed out afterwards.
// So is every item whose work was interrupted, even if its worker just stops or its partition
// was released. After a partition has left, nothing of it remains in the queue or in the rate
// limiter; and nothing at all remains after a shutdown.
//
// The workers are of every kind: they stop when their context ends, ignore it, are slow, panic,
// fail again and again without a Forget, or add other items. Items are added one by one and in
// bursts. A member may lose everything at once, as when its Lease was evicted.
func TestQ1Q2Q3_Model(t *testing.T) {
	for seed := range uint64(*seeds) {
		// Without NotOwned, no item may be dropped. With NotOwned, the loop delivers all items
		// again on activation, as an informer does.
		for _, notOwned := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t, seed, notOwned)
				m.play()
				if t.Failed() {
					t.Fatalf("seed %d, notOwned %t", seed, notOwned)
				}
			})
		}
	}
}

const (
	modelItems   = 4 * partitions // pointOfInt: four items in each partition
	modelWorkers = 11
	modelAdders  = 4
)

type model struct {
	t        *testing.T
	seed     uint64
	notOwned bool
	owner    *owner
	q        *Queue[int]
	notice   chan struct{} // OnDone

	released [partitions]atomic.Bool  // no work is allowed: InFlight no longer lists the partition
	left     [partitions]bool         // another member owned it since it was last active
	held     [partitions]atomic.Int64 // items that workers hold
	added    [modelItems]atomic.Int64 // the number of Adds that have begun
	served   [modelItems]atomic.Int64 // the last Add that had begun when the item was handed out
	handOuts atomic.Int64
	obeyed   atomic.Int64 // pieces of work that stopped because they were interrupted
	panics   atomic.Int64 // pieces of work that panicked
	drains   int
	waits    int
	losses   int // of everything at once
	failures int // that the rate limiter remembered of partitions that were about to leave
}

func newModel(t *testing.T, seed uint64, notOwned bool) *model {
	m := &model{t: t, seed: seed, notOwned: notOwned, owner: newOwner(ring.Active), notice: make(chan struct{}, 1)}
	m.q = New(workqueue.NewTypedItemExponentialFailureRateLimiter[int](time.Microsecond, time.Millisecond), Options[int]{
		Ownership: m.owner, Point: pointOfInt,
	})
	m.q.OnDone(func() {
		select {
		case m.notice <- struct{}{}:
		default:
		}
	})
	return m
}

func (m *model) play() {
	var workers, adders sync.WaitGroup
	for i := range modelWorkers {
		workers.Go(func() { m.work(m.random(100 + i)) })
	}
	stop := make(chan struct{})
	for i := range modelAdders {
		adders.Go(func() { m.add(m.random(200+i), stop) })
	}
	m.loop(m.random(300))
	close(stop)
	adders.Wait()
	time.Sleep(time.Minute) // all timers fire
	synctest.Wait()         // the workers have processed everything
	for item := range modelItems {
		if added, served := m.added[item].Load(), m.served[item].Load(); served < added {
			m.t.Errorf("item %d was added %d times and not handed out after Add %d", item, added, served)
		}
	}
	if m.q.Len() != 0 || m.q.Parked() != 0 || len(m.q.InFlight()) != 0 {
		m.t.Errorf("at the end: %d queued, %d parked, in flight %v", m.q.Len(), m.q.Parked(), m.q.InFlight())
	}
	for item := range modelItems {
		m.q.Forget(item)
	}
	if n := len(m.q.items.entries); n != 0 {
		m.t.Errorf("at the end, %d items remain after Forget", n)
	}
	checkTable(m.t, &m.q.items)
	m.shutDown(m.random(400))
	workers.Wait()
	checkTable(m.t, &m.q.items)
	if !m.q.Closed() || len(m.q.items.entries)+len(m.q.unfinished) != 0 {
		m.t.Errorf("after the shutdown: closed %t, items %v, unfinished %v", m.q.Closed(), m.q.items.entries, m.q.unfinished)
	}
	if m.handOuts.Load() < 500 || m.drains < 20 || m.waits < 5 || m.obeyed.Load() < 5 || m.panics.Load() < 5 ||
		m.notOwned && (m.failures < 5 || m.losses == 0) {
		m.t.Errorf("the run tested too little: %d hand-outs, %d drains, %d of them waited, %d pieces of work interrupted, %d panicked, %d failures left, %d losses",
			m.handOuts.Load(), m.drains, m.waits, m.obeyed.Load(), m.panics.Load(), m.failures, m.losses)
	}
}

// shutDown shuts down the queue behind a burst, while partitions are in any state.
func (m *model) shutDown(random *rand.Rand) {
	m.burst(random)
	for partition := range partitions {
		m.owner.set(partition, []ring.State{ring.NotOwned, ring.Pending, ring.Active}[random.IntN(3)])
	}
	m.owner.fenced.Store(random.IntN(3) == 0)
	m.q.Readmit()
	var waits sync.WaitGroup
	waits.Go(func() { m.burst(m.random(401)) })
	if random.IntN(2) == 0 {
		m.q.ShutDownWithDrain()
	}
	m.q.ShutDown()
	waits.Wait()
}

// burst adds all items at once.
func (m *model) burst(random *rand.Rand) {
	for item := range modelItems {
		m.put(random, item)
	}
}

func (m *model) random(role int) *rand.Rand { return rand.New(rand.NewPCG(m.seed, uint64(role))) }

// put adds an item with a randomly chosen method.
func (m *model) put(random *rand.Rand, item int) {
	m.added[item].Add(1)
	switch random.IntN(4) {
	case 0:
		m.q.AddAfter(item, time.Duration(random.IntN(100))*time.Microsecond)
	case 1:
		m.q.AddRateLimited(item)
	default:
		m.q.Add(item)
	}
}

func (m *model) add(random *rand.Rand, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if random.IntN(20) == 0 {
			m.burst(random)
		}
		for range random.IntN(20) {
			m.put(random, random.IntN(modelItems))
		}
		time.Sleep(time.Duration(random.IntN(100)) * time.Microsecond)
	}
}

func (m *model) work(random *rand.Rand) {
	for {
		item, shutdown := m.q.Get()
		if shutdown {
			return
		}
		partition := item % partitions
		m.served[item].Store(m.added[item].Load())
		m.held[partition].Add(1)
		m.handOuts.Add(1)
		check := func(when string) {
			if m.released[partition].Load() {
				m.t.Errorf("%s: a worker holds item %d, but its partition is released", when, item)
			}
		}
		check("after Get")
		func() {
			// As a controller does with HandleCrash: the item is not retried.
			defer func() {
				if r := recover(); r != nil && r != any("the work panics") {
					panic(r)
				}
				check("before Done")
				m.held[partition].Add(-1)
				if random.IntN(2) == 0 {
					m.q.Forget(item)
				}
				m.q.Done(item)
			}()
			m.one(random, item)
		}()
	}
}

// one is one piece of work, of any kind.
func (m *model) one(random *rand.Rand, item int) {
	switch random.IntN(8) {
	case 0:
		// Work that ends when its context ends, or after a while.
		ctx, cancel := context.WithTimeout(m.q.Context(context.Background(), item), time.Duration(random.IntN(300))*time.Microsecond)
		<-ctx.Done()
		cancel()
		if random.IntN(2) == 0 {
			m.put(random, item) // it failed
		}
	case 1:
		// Work that ignores its context.
		time.Sleep(time.Duration(random.IntN(300)) * time.Microsecond)
	case 2:
		m.put(random, item)
	case 3:
		m.put(random, random.IntN(modelItems)) // another item
	case 4, 5:
		m.obey(random, item)
	case 6:
		m.panics.Add(1)
		panic("the work panics")
	}
}

// obey is work that stops when it is interrupted, and does not add its item again. Another
// hand-out must do the rest, as if the item were added again now; or the partition is
// released, and all its items are added when it is activated again.
func (m *model) obey(random *rand.Rand, item int) {
	ctx := m.q.Context(context.Background(), item)
	for range 3 {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(random.IntN(200)) * time.Microsecond):
		}
		if Check(ctx) != nil {
			m.obeyed.Add(1)
			m.added[item].Add(1)
			return
		}
	}
}

// loop does what the shard's loop does: nothing else changes states.
func (m *model) loop(random *rand.Rand) {
	for step := range 200 {
		time.Sleep(time.Duration(random.IntN(50)) * time.Microsecond)
		if m.notOwned && step == 100 {
			m.lose(random)
		}
		partition := random.IntN(partitions)
		switch ring.State(m.owner.states[partition].Load()) {
		case ring.Active:
			switch random.IntN(8) {
			case 0, 1:
				m.fence(random)
			case 2:
				m.blink(random)
			case 3:
				if m.notOwned && random.IntN(4) == 0 {
					m.lose(random)
					continue
				}
				fallthrough
			default:
				m.drain(partition, random)
			}
		case ring.Pending:
			m.activate(partition)
		case ring.NotOwned:
			m.released[partition].Store(false)
			m.owner.set(partition, ring.Pending)
			if random.IntN(2) == 0 {
				m.q.Readmit()
			}
		}
	}
	for partition := range partitions {
		if ring.State(m.owner.states[partition].Load()) != ring.Active {
			m.activate(partition)
		}
	}
}

func (m *model) activate(partition int) {
	m.released[partition].Store(false)
	m.owner.set(partition, ring.Active)
	m.q.Readmit()
	if m.left[partition] {
		m.left[partition] = false
		for item := partition; item < modelItems; item += partitions {
			m.q.Add(item) // the replay, which replaces all Adds before
		}
	}
}

func (m *model) drain(partition int, random *rand.Rand) {
	m.drains++
	m.owner.set(partition, ring.Pending)
	m.q.Drain(inPartition(partition))
	if random.IntN(2) == 0 {
		time.Sleep(time.Duration(random.IntN(100)) * time.Microsecond) // the grace
	}
	m.q.Cancel(inPartition(partition))
	waited := false
	for m.worksOn(partition) {
		waited = true
		<-m.notice
	}
	if waited {
		m.waits++
	}
	if n := m.held[partition].Load(); n != 0 {
		m.t.Errorf("partition %d: InFlight does not list it, but workers hold %d items", partition, n)
	}
	m.released[partition].Store(true)
	if m.notOwned && random.IntN(3) > 0 {
		m.left[partition] = true
		for item := partition; item < modelItems; item += partitions {
			m.failures += m.q.NumRequeues(item)
		}
		m.owner.set(partition, ring.NotOwned)
		m.q.Readmit()
		m.nothingRemains(func(p int) bool { return p == partition })
	}
}

// nothingRemains fails the test if anything of the partitions remains, except work in flight,
// of which Done decides what becomes of it.
func (m *model) nothingRemains(left func(partition int) bool) {
	synctest.Wait() // no goroutine is within a method of the queue, except Get
	m.q.mu.Lock()
	for item, e := range m.q.items.entries {
		if left(item%partitions) && (e.place != inFlight || e.failed) {
			m.t.Errorf("after its partition has left, this remains of item %d: %+v", item, e)
		}
	}
	m.q.mu.Unlock()
	for item := range modelItems {
		if n := m.q.NumRequeues(item); left(item%partitions) && n > 0 {
			m.t.Errorf("after its partition has left, %d failures of item %d remain", n, item)
		}
	}
}

// lose is the loss of everything at once. No drain comes before it, and workers that ignore
// their contexts continue.
func (m *model) lose(random *rand.Rand) {
	m.losses++
	m.owner.fenced.Store(true)
	m.owner.setAll(ring.NotOwned)
	m.q.Fence()
	m.q.Readmit()
	time.Sleep(time.Duration(random.IntN(100)) * time.Microsecond)
	m.nothingRemains(func(int) bool { return true })
	for len(m.q.InFlight()) > 0 {
		<-m.notice
	}
	for partition := range partitions {
		m.left[partition] = true
		m.released[partition].Store(true)
	}
	m.owner.fenced.Store(false)
	m.q.Readmit()
}

func (m *model) worksOn(partition int) bool {
	for _, w := range m.q.InFlight() {
		if ring.PartitionOf(w.Point, partitions) == partition {
			return true
		}
	}
	return false
}

// blink is a fence that only the clock shows: the response to a renewal comes late.
func (m *model) blink(random *rand.Rand) {
	m.owner.fenced.Store(true)
	time.Sleep(time.Duration(random.IntN(300)) * time.Microsecond)
	m.owner.fenced.Store(false)
	m.q.Readmit()
}

// fence stops all work for a while.
func (m *model) fence(random *rand.Rand) {
	m.owner.fenced.Store(true)
	m.q.Fence()
	for len(m.q.InFlight()) > 0 {
		<-m.notice
	}
	before := m.handOuts.Load()
	for p := range partitions {
		if n := m.held[p].Load(); n != 0 {
			m.t.Errorf("partition %d: workers hold %d items while fenced", p, n)
		}
	}
	time.Sleep(time.Duration(random.IntN(300)) * time.Microsecond)
	if after := m.handOuts.Load(); after != before {
		m.t.Errorf("%d items were handed out while fenced", after-before)
	}
	m.owner.fenced.Store(false)
	m.q.Readmit()
}
