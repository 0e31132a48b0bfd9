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

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// controllerRun is the controller of one kind on one member: an informer, a queue, and workers.
type controllerRun struct {
	queue shard.Queue[cache.ObjectName]
	stop  context.CancelFunc // of the informer
	quit  context.CancelFunc // of the workers, which then leave what is queued
	run   sync.WaitGroup
	since time.Time // it knows all deletions after this
}

// kindRun is a kind that is installed: its objects, and its controllers by member.
type kindRun struct {
	name    string
	version func(string) string // what its resourceVersions look like
	slow    bool                // its workers have a backlog
	objects *objects
	runs    map[*member]*controllerRun
}

// versionForms are what resourceVersions may look like.
var versionForms = []func(string) string{
	func(v string) string { return v },
	func(v string) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(v))) + "-opaque" },
	func(string) string { return "" },
}

// trueVersion is the annotation with the version of an object, whatever its resourceVersion looks like.
const trueVersion = "version"

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
	members []*member
	kinds   []*kindRun
	n       int // members and kinds so far

	deletions int // that had to be worked on
}

// Controllers and members start and stop all the time. The workers are slow, fail, panic, add
// other items, ignore their context, have backlogs, and stop while items are queued. Some objects
// have resourceVersions that are opaque, or none.
// Each object is worked on at its last version within a minute, by one member at a time, and
// nothing remains of a controller that has gone. Objects have no finalizers: each deletion is
// worked on, too, if the informer of the member that owns the object at the end has seen it (G4;
// all deletions are within the window).
func TestControllersThatComeAndGo(t *testing.T) {
	deletions := 0
	t.Cleanup(func() {
		if t.Logf("%d deletions", deletions); deletions == 0 {
			t.Error("no deletion had to be worked on")
		}
	})
	for seed := range uint64(*seeds) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &comeAndGo{t: t, rand: rand.New(rand.NewPCG(seed, seed)), cluster: shardtest.NewCluster()}
				f.play()
				deletions += f.deletions
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
		switch n := f.rand.IntN(10); {
		case n < 2 && len(f.kinds) < 5:
			f.install()
		case n < 4 && len(f.kinds) > 1:
			f.uninstall(f.rand.IntN(len(f.kinds)))
		case n == 4 && len(f.members) < 4:
			f.join()
		case n == 5 && len(f.members) > 1:
			f.leave(f.rand.IntN(len(f.members)))
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
	if f.x.Total() < 100 {
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
			return k.objects.gone[key].After(k.runs[m].since)
		}
	}
	f.t.Errorf("no member owns %s", key)
	return false
}

func (f *comeAndGo) join() {
	f.n++
	pod := fmt.Sprint("op-", f.n)
	m := start(f.t, f.cluster.Client(pod), pod)
	f.members = append(f.members, m)
	for _, k := range f.kinds {
		f.control(k, m)
	}
}

// leave ends a process: Run first, while its workers continue.
func (f *comeAndGo) leave(at int) {
	m := f.members[at]
	f.members = slices.Delete(f.members, at, at+1)
	if err := m.end(); err != nil {
		f.t.Errorf("%s: %v", m.PodName(), err)
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
		objects: newObjects(), runs: map[*member]*controllerRun{},
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
func (f *comeAndGo) control(k *kindRun, m *member) {
	c := &controllerRun{queue: newTestQueue(m.Sharder), since: time.Now()}
	k.runs[m] = c
	informing, stop := context.WithCancel(context.Background())
	working, quit := context.WithCancel(context.Background())
	c.stop, c.quit = stop, quit
	i := shard.NewInformer(m.Sharder, k.objects.listWatch(0), &corev1.ConfigMap{}, 0, nil)
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

// work is one piece of work, of any kind.
func (f *comeAndGo) work(k *kindRun, m *member, c *controllerRun, store cache.Store, item cache.ObjectName, random *rand.Rand) {
	defer c.queue.Done(item)
	defer func() { _ = recover() }() // as HandleCrash
	version := "gone"
	if obj, exists, _ := store.GetByKey(item.String()); exists {
		version = obj.(metav1.Object).GetAnnotations()[trueVersion]
	}
	w := f.x.Begin(m.PodName(), k.name+"/"+item.String(), version)
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
