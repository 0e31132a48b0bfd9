// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// process is a member, the way of its requests, and callers of Acquire.
type process struct {
	*member
	name     string // a restarted member has another name than before
	client   *faultyClient
	healed   time.Time // when its outage ends; zero if there is none
	dark     bool      // in its outage, its informers cannot reach the API server either
	stopping atomic.Bool
	callers  sync.WaitGroup // of Acquire
	quit     context.CancelFunc
}

// comeAndGo is a fleet on which kinds come and go, as custom resources do.
type comeAndGo struct {
	t        *testing.T
	rand     *rand.Rand
	cluster  *shardtest.Cluster
	x        shardtest.Exclusive // the work from queues, by kind and object
	acquired shardtest.Exclusive // the work from Acquire, by process and key
	keys     shardtest.Exclusive // all work, by key: only two members exclude each other
	members  []*process
	kinds    []*kindRun
	n        int         // processes and kinds so far
	calm     atomic.Bool // nothing comes or goes any more

	mu  sync.Mutex
	met map[string]int // how often what the test is about has happened; guarded by mu
}

// wanted is what must have happened in one seed, or the test proves less than it claims.
var wanted = []string{
	"deletions at the end",
	"a member is fenced",
	"a member leaves in an outage",
	"a member crashes and starts again",
	"a handler blocks while its member is fenced",
	"a key is acquired while it is drained",
	"a caller of Acquire gets what its member has gained",
	"a queue is shut down while a partition is drained",
	"a gained item waits while others are handed out",
	"an item waits while gained ones are handed out",
}

// Controllers and members start and stop all the time, also while members cannot reach the API
// server, for less or longer than the duration of a Lease. Members restart in their Pods. The
// workers are slow, fail, panic, add other items, ignore their context, have backlogs, and stop
// while items are queued. Handlers are slow, and block while their member is fenced. Other work
// acquires the same keys. Queues are shut down while partitions are drained. Some objects have
// resourceVersions that are opaque, or none.
// Each object is worked on at its last version within a minute, by one member at a time, and
// nothing remains of a controller that has gone. Objects have no finalizers: each deletion is
// worked on, too, if the informer of the member that owns the object at the end has seen it (G4).
// Handlers see the order of I1, and queues keep that of Q12.
func TestControllersThatComeAndGo(t *testing.T) {
	n := 10 * *seeds // a seed takes a tenth of a second
	if testing.Short() {
		n = *seeds
	}
	met := map[string]int{}
	t.Cleanup(func() {
		t.Log("what has happened:", met)
		for _, what := range wanted {
			if met[what] == 0 && n > *seeds {
				t.Errorf("in no seed: %s", what)
			}
		}
	})
	first := uint64(0)
	if *onlySeed != 0 {
		first, n = *onlySeed, 1
	}
	for seed := first; seed < first+uint64(n); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &comeAndGo{t: t, rand: rand.New(rand.NewPCG(seed, seed)), cluster: shardtest.NewCluster(), met: map[string]int{}}
				f.play()
				for what, n := range f.met {
					met[what] += n
				}
			})
		})
	}
}

// happened counts something that the test is about.
func (f *comeAndGo) happened(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.met[what]++
}

func (f *comeAndGo) play() {
	for range 2 {
		f.join()
		f.install()
	}
	for range 25 {
		f.heal(time.Now())
		switch n := f.rand.IntN(16); {
		case n < 2 && len(f.kinds) < 5:
			f.install()
		case n < 4 && len(f.kinds) > 1:
			f.uninstall(f.rand.IntN(len(f.kinds)))
		case n == 4 && len(f.members) < 4:
			f.join()
		case n == 5 && len(f.members) > 1:
			f.leave(f.rand.IntN(len(f.members)))
		case n == 6:
			f.restart(f.rand.IntN(len(f.members)))
		case n == 7 && len(f.kinds) > 1 && len(f.members) > 1:
			f.uninstallInHandover()
		case n < 11:
			f.cut(f.members[f.rand.IntN(len(f.members))])
		}
		for _, k := range f.kinds {
			for range f.rand.IntN(15) {
				if name := objectName(f.rand.IntN(20)); f.rand.IntN(8) == 0 {
					k.objects.remove(name)
				} else {
					k.objects.write(name)
				}
			}
		}
		time.Sleep(time.Duration(f.rand.IntN(5000)) * time.Millisecond)
	}
	f.heal(time.Now().Add(never))
	time.Sleep(time.Minute) // informers try again after up to a minute
	f.calm.Store(true)
	time.Sleep(time.Minute)
	f.check()
	for len(f.kinds) > 0 {
		f.uninstall(0)
	}
	time.Sleep(3 * time.Minute)
	for _, m := range f.members {
		if informers, queues := m.Registered(); informers > 0 || queues > 1 || m.Parked() > 0 { // Acquire has one
			f.t.Errorf("%s keeps %d informers and %d queues, %d items parked", m.name, informers, queues, m.Parked())
		}
	}
	for len(f.members) > 0 {
		f.leave(0)
	}
	for _, overlap := range f.keys.Overlaps() {
		if overlap.First.Member != overlap.Second.Member {
			f.t.Error("two members work on the key ", overlap)
		}
	}
	for _, overlap := range append(f.x.Overlaps(), f.acquired.Overlaps()...) {
		f.t.Error("two at work on ", overlap)
	}
}

// check fails if an object was not worked on at its last version, or a member has not joined.
func (f *comeAndGo) check() {
	for _, k := range f.kinds {
		last := map[string]string{}
		for key, version := range k.objects.versions(time.Time{}) {
			if version == "gone" && !f.ownerHasSeen(k, key) {
				continue // a new controller does not know it
			}
			if version == "gone" {
				f.happened("deletions at the end")
			}
			last[k.name+"/"+key] = version
		}
		if lost := f.x.Lost(last); len(lost) > 0 {
			f.t.Errorf("%d of %d objects of %s were not worked on at their last version: %s", len(lost), len(last), k.name, lost[0])
		}
	}
	for _, m := range f.members {
		if err := errors.Join(m.Ready(), m.Healthy()); err != nil {
			f.t.Errorf("%s: %v", m.name, err)
		}
	}
	if f.x.Total() < 40 || f.acquired.Total() < 40 {
		f.t.Errorf("only %d pieces of work from queues, %d from Acquire", f.x.Total(), f.acquired.Total())
	}
}

// ownerHasSeen reports whether the informer of the member that owns an object has seen its deletion.
func (f *comeAndGo) ownerHasSeen(k *kindRun, key string) bool {
	for _, m := range f.members {
		if m.OwnsKey(key) {
			c := k.runs[m]
			c.mu.Lock()
			defer c.mu.Unlock()
			return !c.gone[key].Before(k.objects.gone[key])
		}
	}
	f.t.Errorf("no member owns %s", key)
	return false
}

func (f *comeAndGo) join() {
	pod := fmt.Sprint("op-", f.n)
	f.members = append(f.members, f.start(pod))
}

// start starts a process of a Pod.
func (f *comeAndGo) start(pod string) *process {
	f.n++
	name := fmt.Sprint(pod, ".", f.n)
	m := &process{name: name, client: newFaultyClient(f.cluster.Client(name), f.rand.Uint64())}
	m.member = start(f.t, m.client, pod, func(c *shard.Config) { c.DeletionWindow = time.Hour })
	for _, k := range f.kinds {
		f.control(k, m)
	}
	ctx, quit := context.WithCancel(context.Background())
	m.quit = quit
	for range 2 {
		random := rand.New(rand.NewPCG(f.rand.Uint64(), 0))
		m.callers.Go(func() { f.acquire(ctx, m, random) })
	}
	return m
}

// leave ends the process of a member.
func (f *comeAndGo) leave(at int) {
	m := f.members[at]
	f.members = slices.Delete(f.members, at, at+1)
	f.end(m)
}

// end ends a process: Run first, while its workers continue, or the controllers while Run drains.
func (f *comeAndGo) end(m *process) {
	if !m.healed.IsZero() {
		f.happened("a member leaves in an outage")
	}
	m.stopping.Store(true)
	m.stop()
	controllersFirst := f.rand.IntN(3) == 0
	if controllersFirst {
		time.Sleep(time.Duration(f.rand.IntN(300)) * time.Millisecond)
		f.endControllers(m)
	}
	if err := <-m.done; err != nil {
		f.t.Errorf("%s: %v", m.name, err)
	}
	if _, _, err := m.TryAcquire(context.Background(), "default/"+objectName(0)); !errors.Is(err, shard.ErrStopped) {
		f.t.Errorf("after Run of %s has returned, TryAcquire returns %v", m.name, err)
	}
	if !controllersFirst {
		f.endControllers(m)
	}
	m.quit()
	m.callers.Wait()
}

func (f *comeAndGo) endControllers(m *process) {
	for _, k := range f.kinds {
		f.close(k.runs[m])
		delete(k.runs, m)
	}
}

// restart restarts the process of a member in its Pod, after a crash or not. In some cases the new
// process starts before the end of the old one, as the container of a Pod that is terminated slowly.
func (f *comeAndGo) restart(at int) {
	old := f.members[at]
	if f.rand.IntN(2) == 0 { // none of its requests arrives any more
		f.happened("a member crashes and starts again")
		f.cluster.Break(old.name, shardtest.Unreachable)
	}
	early := f.rand.IntN(3) == 0
	if early {
		f.members[at] = f.start(old.PodName())
		time.Sleep(time.Duration(f.rand.IntN(2000)) * time.Millisecond)
	}
	f.end(old)
	if !early {
		f.members[at] = f.start(old.PodName())
	}
}

// outages are what may happen to the requests of a member for Leases.
var outages = []struct {
	name  string
	begin func(f *comeAndGo, m *process)
}{
	{"requests fail", func(f *comeAndGo, m *process) { f.cluster.Break(m.name, shardtest.Unreachable) }},
	{"requests hang", func(f *comeAndGo, m *process) {
		f.cluster.Break(m.name, shardtest.Unreachable)
		m.client.set(true, 0)
	}},
	{"responses are lost", func(f *comeAndGo, m *process) { f.cluster.Break(m.name, shardtest.LostAnswer) }},
	{"responses hang", func(_ *comeAndGo, m *process) { m.client.set(true, 0) }},
	{"requests are slow", func(_ *comeAndGo, m *process) { m.client.set(false, 2*time.Second) }},
	{"the watch stalls", func(f *comeAndGo, m *process) { f.cluster.ClearFault(m.name) }},
}

// cut begins an outage for a member, or another one if it is in one.
func (f *comeAndGo) cut(m *process) {
	outage := outages[f.rand.IntN(len(outages))]
	long := []int{8, 14, 40}[f.rand.IntN(3)] // below the renew deadline, below the duration of a Lease, any
	outage.begin(f, m)
	m.healed = time.Now().Add(time.Duration(1+f.rand.IntN(long)) * time.Second)
	f.happened(outage.name)
	if m.dark = m.dark || f.rand.IntN(3) > 0; m.dark {
		for _, k := range f.kinds {
			k.runs[m].view.lose()
		}
	}
}

// heal ends the outages that are to end by the given time.
func (f *comeAndGo) heal(by time.Time) {
	for _, m := range f.members {
		if m.healed.IsZero() || m.healed.After(by) {
			continue
		}
		if m.Fenced() {
			f.happened("a member is fenced")
		}
		m.healed, m.dark = time.Time{}, false
		m.client.set(false, 0)
		f.cluster.Break(m.name, shardtest.None)
		for _, k := range f.kinds {
			k.runs[m].view.regain(f.rand.IntN(2) == 0, f.rand.IntN(2) == 0)
		}
	}
}
