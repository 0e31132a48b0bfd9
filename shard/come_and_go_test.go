// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// process is one process: a member, and the way of its requests.
type process struct {
	*member
	name   string // of the process
	client *faultyClient
	healed time.Time // when its outage ends; zero if there is none
	dark   bool      // in its outage, its informers cannot reach the API server either
}

// controllerRun is the controller of one kind on one member: an informer, a queue, and workers.
type controllerRun struct {
	queue shard.Queue[cache.ObjectName]
	view  *view
	stop  context.CancelFunc // of the informer
	quit  context.CancelFunc // of the workers, which then leave what is queued
	run   sync.WaitGroup

	mu   sync.Mutex
	gone map[string]time.Time // when its informer saw the deletion of an object that has not come back; guarded by mu
}

// kindRun is a kind that is installed: its objects, and its controllers by member.
type kindRun struct {
	name    string
	version func(string) string // what its resourceVersions look like
	slow    bool                // its workers have a backlog
	objects *objects
	runs    map[*process]*controllerRun
}

// versionForms are what resourceVersions may look like.
var versionForms = []func(string) string{
	func(v string) string { return v },
	func(v string) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(v))) + "-opaque" },
	func(string) string { return "" },
}

// trueVersion is the annotation with the version of an object, whatever its resourceVersion looks like.
const trueVersion = "version"

// wanted is what must have happened in one seed, or the test proves less than it claims.
var wanted = []string{"deletions", "a member is fenced", "a member leaves in an outage"}

// transform is the transform of the informers of the kind.
func (k *kindRun) transform(obj any) (any, error) {
	if cm, ok := obj.(*corev1.ConfigMap); ok && cm.Annotations[trueVersion] == "" {
		cm = cm.DeepCopy()
		cm.Annotations = map[string]string{trueVersion: cm.ResourceVersion}
		cm.ResourceVersion = k.version(cm.ResourceVersion)
		return cm, nil
	}
	return obj, nil
}

// comeAndGo is a fleet on which kinds come and go, as custom resources do.
type comeAndGo struct {
	t       *testing.T
	rand    *rand.Rand
	cluster *shardtest.Cluster
	x       shardtest.Exclusive
	members []*process
	kinds   []*kindRun
	n       int // members and kinds so far

	deletions int            // that had to be worked on
	met       map[string]int // how often what the test is about has happened
}

// Controllers and members start and stop all the time, also while members cannot reach the API
// server, for less or longer than the duration of a Lease. The workers are slow, fail, panic, add
// other items, ignore their context, have backlogs, and stop while items are queued. Some objects
// have resourceVersions that are opaque, or none.
// Each object is worked on at its last version within a minute, by one member at a time, and
// nothing remains of a controller that has gone. Objects have no finalizers: each deletion is
// worked on, too, if the informer of the member that owns the object at the end has seen it (G4).
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
				f.met["deletions"] += f.deletions
				for what, n := range f.met {
					met[what] += n
				}
			})
		})
	}
}

func (f *comeAndGo) play() {
	for range 2 {
		f.join()
		f.install()
	}
	for range 25 {
		f.heal(time.Now())
		switch n := f.rand.IntN(14); {
		case n < 2 && len(f.kinds) < 5:
			f.install()
		case n < 4 && len(f.kinds) > 1:
			f.uninstall(f.rand.IntN(len(f.kinds)))
		case n == 4 && len(f.members) < 4:
			f.join()
		case n == 5 && len(f.members) > 1:
			f.leave(f.rand.IntN(len(f.members)))
		case n < 9:
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
	time.Sleep(time.Minute)
	for _, k := range f.kinds {
		last := map[string]string{}
		for key, version := range k.objects.versions(time.Time{}) {
			if version == "gone" && !f.ownerHasSeen(k, key) {
				continue // a new controller does not know it
			}
			if version == "gone" {
				f.deletions++
			}
			last[k.name+"/"+key] = version
		}
		if lost := f.x.Lost(last); len(lost) > 0 {
			f.t.Errorf("%d of %d objects of %s were not worked on at their last version: %s", len(lost), len(last), k.name, lost[0])
		}
	}
	for _, overlap := range f.x.Overlaps() {
		f.t.Error(overlap)
	}
	if f.x.Total() < 40 {
		f.t.Errorf("only %d pieces of work", f.x.Total())
	}
	for len(f.kinds) > 0 {
		f.uninstall(0)
	}
	time.Sleep(3 * time.Minute)
	for _, m := range f.members {
		if informers, queues := m.Registered(); informers > 0 || queues > 1 || m.Parked() > 0 { // Acquire has one
			f.t.Errorf("%s keeps %d informers and %d queues, %d items parked", m.PodName(), informers, queues, m.Parked())
		}
	}
	for len(f.members) > 0 {
		f.leave(0)
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
	f.n++
	name := fmt.Sprint("op-", f.n)
	m := &process{name: name, client: newFaultyClient(f.cluster.Client(name), f.rand.Uint64())}
	m.member = start(f.t, m.client, name, func(c *shard.Config) { c.DeletionWindow = time.Hour })
	f.members = append(f.members, m)
	for _, k := range f.kinds {
		f.control(k, m)
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
	f.met[outage.name]++
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
			f.met["a member is fenced"]++
		}
		m.healed, m.dark = time.Time{}, false
		m.client.set(false, 0)
		f.cluster.Break(m.name, shardtest.None)
		for _, k := range f.kinds {
			k.runs[m].view.regain(f.rand.IntN(2) == 0, f.rand.IntN(2) == 0)
		}
	}
}

// leave ends a process: Run first, while its workers continue.
func (f *comeAndGo) leave(at int) {
	m := f.members[at]
	f.members = slices.Delete(f.members, at, at+1)
	if err := m.end(); err != nil {
		f.t.Errorf("%s: %v", m.PodName(), err)
	}
	if !m.healed.IsZero() {
		f.met["a member leaves in an outage"]++
	}
	for _, k := range f.kinds {
		k.runs[m].close()
		delete(k.runs, m)
	}
}

func (f *comeAndGo) install() {
	f.n++
	k := &kindRun{
		name: fmt.Sprint("kind-", f.n), version: versionForms[f.rand.IntN(len(versionForms))], slow: f.rand.IntN(2) == 0,
		objects: newObjects(), runs: map[*process]*controllerRun{},
	}
	for i := range 20 {
		k.objects.write(objectName(i))
	}
	f.kinds = append(f.kinds, k)
	for _, m := range f.members {
		f.control(k, m)
	}
}

// uninstall stops the controllers of a kind, on each member at another time. Some workers quit
// at once, and leave what is queued.
func (f *comeAndGo) uninstall(at int) {
	k := f.kinds[at]
	f.kinds = slices.Delete(f.kinds, at, at+1)
	for _, m := range f.members {
		c := k.runs[m]
		if f.rand.IntN(2) == 0 {
			c.quit()
			for i := range 20 {
				c.queue.Add(cache.ObjectName{Namespace: "default", Name: objectName(i)})
			}
		}
		c.close()
		time.Sleep(time.Duration(f.rand.IntN(500)) * time.Millisecond)
	}
}

func (c *controllerRun) close() {
	c.stop()
	c.queue.ShutDown()
	c.run.Wait()
	c.quit()
}

// control starts the controller of a kind on a member.
func (f *comeAndGo) control(k *kindRun, m *process) {
	c := &controllerRun{queue: newTestQueue(m.Sharder), view: k.objects.listWatch(0), gone: map[string]time.Time{}}
	k.runs[m] = c
	if m.dark {
		c.view.lose()
	}
	informing, stop := context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	working, quit := context.WithCancel(context.Background())
	c.stop, c.quit = stop, quit
	inner := cache.NewSharedIndexInformer(c.view, &corev1.ConfigMap{}, 0, cache.Indexers{})
	if _, err := inner.AddEventHandler(c.deletions()); err != nil {
		f.t.Fatal(err)
	}
	i := shard.WrapInformer(m.Sharder, inner)
	if err := i.SetTransform(k.transform); err != nil {
		f.t.Fatal(err)
	}
	add := func(obj any) {
		if name, err := cache.DeletionHandlingObjectToName(obj); err == nil {
			c.queue.Add(name)
		}
	}
	if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, obj any) { add(obj) }, DeleteFunc: add}); err != nil {
		f.t.Fatal(err)
	}
	c.run.Go(func() { i.RunWithContext(informing) })
	for range 2 {
		random := rand.New(rand.NewPCG(f.rand.Uint64(), 0))
		c.run.Go(func() {
			for working.Err() == nil {
				item, shutdown := c.queue.Get()
				if shutdown {
					return
				}
				f.work(k, m, c, i.GetStore(), item, random)
			}
		})
	}
}

// deletions is the handler that sees all objects, those of other members too.
func (c *controllerRun) deletions() cache.ResourceEventHandler {
	note := func(obj any, gone bool) {
		name, _ := cache.DeletionHandlingObjectToName(obj)
		c.mu.Lock()
		defer c.mu.Unlock()
		if delete(c.gone, name.String()); gone {
			c.gone[name.String()] = time.Now()
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) { note(obj, false) }, DeleteFunc: func(obj any) { note(obj, true) }}
}

// work is one piece of work, of any kind.
func (f *comeAndGo) work(k *kindRun, m *process, c *controllerRun, store cache.Store, item cache.ObjectName, random *rand.Rand) {
	defer c.queue.Done(item)
	defer func() { _ = recover() }() // as HandleCrash
	version := "gone"
	if obj, exists, _ := store.GetByKey(item.String()); exists {
		version = obj.(metav1.Object).GetAnnotations()[trueVersion]
	}
	w := f.x.Begin(m.name, k.name+"/"+item.String(), version)
	completed := false
	defer func() { w.End(completed) }()
	ctx := c.queue.Context(context.Background(), item)
	longest := 100
	if k.slow {
		longest = 2000
	}
	switch random.IntN(20) {
	case 0: // ignores its context
		time.Sleep(time.Duration(random.IntN(2000+2*longest)) * time.Millisecond)
	case 1:
		c.queue.AddRateLimited(item)
		panic("the work panics")
	case 2:
		c.queue.AddRateLimited(item)
		return
	case 3: // only objects that exist, or it would hide that a deletion was lost
		if objects := store.List(); len(objects) > 0 {
			c.queue.Add(cache.MetaObjectToName(objects[random.IntN(len(objects))].(metav1.Object)))
		}
	default:
		pause(ctx, time.Duration(random.IntN(longest))*time.Millisecond)
	}
	if ctx.Err() == nil {
		completed = true
		c.queue.Forget(item)
	}
}
