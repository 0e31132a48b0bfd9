// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// controllerRun is the controller of one kind on one member: an informer, a queue, and workers.
type controllerRun struct {
	f         *comeAndGo
	k         *kindRun
	m         *process
	queue     shard.Queue[cache.ObjectName]
	view      *view
	store     cache.Store
	informing context.Context
	stop      context.CancelFunc // of the informer
	quit      context.CancelFunc // of the workers, which then leave what is queued
	run       sync.WaitGroup
	handling  atomic.Bool       // a handler is called
	known     map[string]uint64 // the versions that the handler has seen of the objects that it knows
	newest    map[string]uint64 // the same, of those that were released too

	mu    sync.Mutex
	gone  map[string]time.Time // when its informer saw the deletion of an object that has not come back; guarded by mu
	order order                // guarded by mu
}

// kindRun is a kind that is installed: its objects, and its controllers by member.
type kindRun struct {
	name    string
	form    int           // what its resourceVersions look like
	slow    bool          // its workers have a backlog
	gains   bool          // its handlers treat gained objects in another way
	handler time.Duration // of a call of its handlers, at most
	blocks  bool          // its handlers block while the member is fenced
	objects *objects
	runs    map[*process]*controllerRun
}

// versionForms are what resourceVersions may look like.
var versionForms = []func(string) string{
	func(v string) string { return v },
	func(v string) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(v))) + "-opaque" },
	func(string) string { return "" },
}

// comparableForm is the form of versions that informers can compare.
const comparableForm = 0

// trueVersion is the annotation with the version of an object, whatever its resourceVersion looks like.
const trueVersion = "version"

// transform is the transform of the informers of the kind.
func (k *kindRun) transform(obj any) (any, error) {
	if cm, ok := obj.(*corev1.ConfigMap); ok && cm.Annotations[trueVersion] == "" {
		cm = cm.DeepCopy()
		cm.Annotations = map[string]string{trueVersion: cm.ResourceVersion}
		cm.ResourceVersion = versionForms[k.form](cm.ResourceVersion)
		return cm, nil
	}
	return obj, nil
}

func (f *comeAndGo) install() {
	f.n++
	k := &kindRun{
		name: fmt.Sprint("kind-", f.n), form: f.rand.IntN(len(versionForms)), slow: f.rand.IntN(2) == 0,
		gains: f.rand.IntN(2) == 0, blocks: f.rand.IntN(3) == 0,
		objects: newObjects(), runs: map[*process]*controllerRun{},
	}
	if f.rand.IntN(3) == 0 {
		k.handler = 200 * time.Millisecond
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
				c.add(cache.ObjectName{Namespace: "default", Name: objectName(i)})
			}
		}
		f.close(c)
		time.Sleep(time.Duration(f.rand.IntN(500)) * time.Millisecond)
	}
}

// uninstallInHandover stops the controllers of a kind while a member joins or leaves.
func (f *comeAndGo) uninstallInHandover() {
	if len(f.members) < 4 {
		f.join()
		time.Sleep(time.Duration(f.rand.IntN(4000)) * time.Millisecond)
		f.uninstall(f.rand.IntN(len(f.kinds)))
		return
	}
	m := f.members[0]
	m.stopping.Store(true)
	m.stop()
	time.Sleep(time.Duration(f.rand.IntN(100)) * time.Millisecond)
	f.uninstall(f.rand.IntN(len(f.kinds)))
	f.leave(0)
}

// close stops a controller.
func (f *comeAndGo) close(c *controllerRun) {
	for i := range 20 {
		if c.m.drains("default/" + objectName(i)) {
			f.happened("a queue is shut down while a partition is drained")
			break
		}
	}
	c.mu.Lock()
	c.order.ended = true
	c.mu.Unlock()
	withDrain := f.rand.IntN(2) == 0
	if f.rand.IntN(2) == 0 {
		c.stop()
	}
	if withDrain {
		c.queue.ShutDownWithDrain()
	} else {
		c.queue.ShutDown()
	}
	c.stop()
	c.run.Wait()
	c.quit()
}

// drains reports whether a member drains the partition of a key, or is about to gain it.
func (m *process) drains(key string) bool {
	return m.State(ring.PointOfName("default", key[len("default/"):])) == ring.Pending && !m.Fenced()
}

// control starts the controller of a kind on a member.
func (f *comeAndGo) control(k *kindRun, m *process) {
	c := &controllerRun{
		f: f, k: k, m: m, queue: newTestQueue(m.Sharder), view: k.objects.listWatch(0),
		known: map[string]uint64{}, newest: map[string]uint64{}, gone: map[string]time.Time{}, order: newOrder(m, f.happened),
	}
	k.runs[m] = c
	if m.dark {
		c.view.lose()
	}
	c.informing, c.stop = context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	working, quit := context.WithCancel(context.Background())
	c.quit = quit
	inner := cache.NewSharedIndexInformer(c.view, &corev1.ConfigMap{}, 0, cache.Indexers{})
	if _, err := inner.AddEventHandler(c.deletions()); err != nil {
		f.t.Fatal(err)
	}
	i := shard.WrapInformer(m.Sharder, inner)
	if err := i.SetTransform(k.transform); err != nil {
		f.t.Fatal(err)
	}
	if _, err := i.AddEventHandler(c.handler(rand.New(rand.NewPCG(f.rand.Uint64(), 0)))); err != nil {
		f.t.Fatal(err)
	}
	c.store = i.GetStore()
	c.run.Go(func() { i.RunWithContext(c.informing) })
	for range 2 {
		random := rand.New(rand.NewPCG(f.rand.Uint64(), 0))
		c.run.Go(func() {
			for working.Err() == nil {
				item, shutdown := c.queue.Get()
				if shutdown {
					return
				}
				f.work(c, item, random)
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

// handler is the handler of the controller. It checks the order of its calls (I1, I5, I9).
func (c *controllerRun) handler(random *rand.Rand) cache.ResourceEventHandler {
	call := func(obj any, check func(key string, version uint64), enqueue func(cache.ObjectName)) {
		if c.handling.Swap(true) {
			c.f.t.Errorf("two calls of a handler of %s on %s at the same time", c.k.name, c.m.name)
		}
		defer c.handling.Store(false)
		name, err := cache.DeletionHandlingObjectToName(obj)
		if err != nil {
			c.f.t.Error(err)
			return
		}
		var version uint64
		if object, ok := obj.(metav1.Object); ok {
			version, _ = strconv.ParseUint(object.GetAnnotations()[trueVersion], 10, 64)
		}
		check(name.String(), version)
		if c.k.blocks && c.m.Fenced() {
			c.f.happened("a handler blocks while its member is fenced")
			for c.m.Fenced() && !c.m.stopping.Load() && c.informing.Err() == nil { // Run waits for calls of handlers
				time.Sleep(100 * time.Millisecond)
			}
		}
		if c.k.handler > 0 {
			pause(c.informing, time.Duration(random.Int64N(int64(c.k.handler))))
		}
		if enqueue != nil {
			enqueue(name)
		}
	}
	see := func(key string, version uint64) {
		if version < c.newest[key] && c.k.form == comparableForm {
			c.f.t.Errorf("a handler of %s on %s sees %s at %d after %d", c.k.name, c.m.name, key, version, c.newest[key])
		}
		c.known[key], c.newest[key] = version, version
	}
	added := func(key string, version uint64) {
		if _, ok := c.known[key]; ok && c.k.form == comparableForm {
			c.f.t.Errorf("a handler of %s on %s sees %s added twice", c.k.name, c.m.name, key)
		}
		see(key, version)
	}
	h := shard.HandlerFuncs{
		AddFunc: func(obj any) { call(obj, added, c.add) },
		UpdateFunc: func(_, obj any) {
			call(obj, func(key string, version uint64) {
				if _, ok := c.known[key]; !ok {
					c.f.t.Errorf("a handler of %s on %s sees an update of %s, which it does not know", c.k.name, c.m.name, key)
				}
				see(key, version)
			}, c.add)
		},
		DeleteFunc: func(obj any) {
			call(obj, func(key string, _ uint64) {
				delete(c.known, key)
				delete(c.newest, key)
			}, c.add)
		},
		ReleasedFunc: func(obj any) {
			call(obj, func(key string, _ uint64) { delete(c.known, key) }, nil)
		},
	}
	if c.k.gains {
		h.GainedFunc = func(obj any) { call(obj, added, c.addGained) }
	}
	return h
}

func (c *controllerRun) add(item cache.ObjectName) {
	c.mu.Lock()
	c.order.added(item)
	c.mu.Unlock()
	c.queue.Add(item)
}

func (c *controllerRun) addGained(item cache.ObjectName) {
	c.mu.Lock()
	c.order.gained(item)
	c.mu.Unlock()
	c.queue.AddGained(item)
}

func (c *controllerRun) addRateLimited(item cache.ObjectName) {
	c.mu.Lock()
	c.order.retried(item)
	c.mu.Unlock()
	c.queue.AddRateLimited(item)
}

// work is one piece of work, of any kind.
func (f *comeAndGo) work(c *controllerRun, item cache.ObjectName, random *rand.Rand) {
	defer c.queue.Done(item)
	c.mu.Lock()
	err := c.order.taken(item)
	c.mu.Unlock()
	if err != nil {
		f.t.Errorf("%s on %s: %v", c.k.name, c.m.name, err)
	}
	completed := false
	defer func() {
		c.mu.Lock()
		c.order.done(item, completed)
		c.mu.Unlock()
	}()
	defer func() { _ = recover() }() // as HandleCrash
	version := "gone"
	if obj, exists, _ := c.store.GetByKey(item.String()); exists {
		version = obj.(metav1.Object).GetAnnotations()[trueVersion]
	}
	w := f.x.Begin(c.m.name, c.k.name+"/"+item.String(), version)
	onKey := f.keys.Begin(c.m.name, item.String(), version)
	defer func() {
		w.End(completed)
		onKey.End(completed)
	}()
	ctx := c.queue.Context(context.Background(), item)
	longest := 100
	if c.k.slow {
		longest = 2000
	}
	switch random.IntN(20) {
	case 0: // ignores its context
		time.Sleep(time.Duration(random.IntN(2000+2*longest)) * time.Millisecond)
	case 1:
		c.addRateLimited(item)
		panic("the work panics")
	case 2:
		c.addRateLimited(item)
		return
	case 3: // only objects that exist, or it would hide that a deletion was lost
		if objects := c.store.List(); len(objects) > 0 {
			c.add(cache.MetaObjectToName(objects[random.IntN(len(objects))].(metav1.Object)))
		}
	default:
		pause(ctx, time.Duration(random.IntN(longest))*time.Millisecond)
	}
	if ctx.Err() == nil {
		completed = true
		c.queue.Forget(item)
	}
}

// acquire works on keys that it acquires, one after another.
func (f *comeAndGo) acquire(ctx context.Context, m *process, random *rand.Rand) {
	for ; ctx.Err() == nil; pause(ctx, time.Duration(random.IntN(300))*time.Millisecond) {
		key := "default/" + objectName(random.IntN(20))
		owned := f.calm.Load() && !m.stopping.Load() && m.OwnsKey(key)
		had := m.OwnsKey(key)
		var work context.Context
		var done func()
		var err error
		if random.IntN(2) == 0 || owned {
			limited, cancel := context.WithTimeout(ctx, 10*time.Second)
			work, done, err = m.Acquire(limited, key)
			cancel()
		} else {
			work, done, err = m.TryAcquire(ctx, key)
		}
		switch {
		case err == nil:
			if !had {
				f.happened("a caller of Acquire gets what its member has gained")
			}
			f.workOnKey(m, work, key, random)
			done()
		case owned && f.calm.Load() && !m.stopping.Load():
			f.t.Errorf("%s cannot acquire a key that it owns: %v", m.name, err)
		case errors.Is(err, shard.ErrStopped) && !m.stopping.Load():
			f.t.Errorf("%s, which has not stopped: %v", m.name, err)
		}
	}
}

func (f *comeAndGo) workOnKey(m *process, work context.Context, key string, random *rand.Rand) {
	a, onKey := f.acquired.Begin(m.name, m.name+" "+key, ""), f.keys.Begin(m.name, key, "")
	if random.IntN(8) == 0 { // ignores its context
		time.Sleep(time.Duration(random.IntN(5000)) * time.Millisecond)
	} else {
		pause(work, time.Duration(random.IntN(1000))*time.Millisecond)
	}
	if m.drains(key) {
		f.happened("a key is acquired while it is drained")
	}
	a.End(true)
	onKey.End(true)
}

// order checks that gained items and others do not wait for each other (Q12).
type order struct {
	m        *process
	happened func(what string)
	inFlight map[cache.ObjectName]bool
	live     map[cache.ObjectName]string    // that wait, as far as it is sure, and their tokens
	gain     map[cache.ObjectName]string    // likewise, those that were gained
	again    map[cache.ObjectName]bool      // in flight, and added again
	unsure   map[cache.ObjectName]bool      // may wait as either; after failures, for instance, AddGained is Add
	timers   map[cache.ObjectName]time.Time // until when a retry may add them, even after another Add
	lives    int                            // that were handed out while the same gained item waited
	gains    int                            // that were handed out while the same other item waited
	ended    bool                           // the queue is shut down, and what is added is dropped
}

func newOrder(m *process, happened func(what string)) order {
	return order{
		m: m, happened: happened, inFlight: map[cache.ObjectName]bool{}, live: map[cache.ObjectName]string{},
		gain: map[cache.ObjectName]string{}, again: map[cache.ObjectName]bool{}, timers: map[cache.ObjectName]time.Time{}, unsure: map[cache.ObjectName]bool{},
	}
}

// owned reports whether an item that is added now waits to be handed out.
func (o *order) owned(item cache.ObjectName) bool {
	return o.m.OwnsKey(item.String()) && !o.m.Fenced()
}

func (o *order) added(item cache.ObjectName) {
	delete(o.gain, item)
	switch {
	case o.inFlight[item]:
		o.again[item] = true
	case o.owned(item):
		o.live[item] = o.m.Token(item.String())
	default:
		o.unsure[item] = true
	}
}

func (o *order) gained(item cache.ObjectName) {
	if _, live := o.current(o.live, item); !live && !o.inFlight[item] && !o.unsure[item] && o.owned(item) {
		o.gain[item] = o.m.Token(item.String())
	} else {
		o.unsure[item] = true
	}
}

func (o *order) retried(item cache.ObjectName) {
	o.timers[item] = time.Now().Add(10 * time.Second) // long after the backoff
	delete(o.gain, item)
}

// current returns whether the item waits since this member has gained its partition last.
func (o *order) current(items map[cache.ObjectName]string, item cache.ObjectName) (string, bool) {
	token, ok := items[item]
	if ok && (token != o.m.Token(item.String()) || !o.m.OwnsKey(item.String())) {
		delete(items, item) // it was dropped
		return "", false
	}
	return token, ok
}

// noted is how many items may have been noted in another order than they were handed out: while one
// worker has taken an item and not noted it yet, the other one may take several.
const noted = 6

func (o *order) taken(item cache.ObjectName) error {
	_, live := o.current(o.live, item)
	_, gained := o.current(o.gain, item)
	delete(o.live, item)
	delete(o.gain, item)
	o.inFlight[item] = true
	for other := range o.live {
		o.current(o.live, other)
	}
	for other := range o.gain {
		o.current(o.gain, other)
	}
	if len(o.live) == 0 || live {
		o.gains = 0
	} else if gained {
		o.happened("an item waits while gained ones are handed out")
		o.gains++
	}
	if len(o.gain) == 0 || gained || o.unsure[item] {
		o.lives = 0
	} else {
		o.happened("a gained item waits while others are handed out")
		o.lives++
	}
	if o.ended {
		return nil
	}
	if o.gains > 1+noted {
		return fmt.Errorf("%d gained items were handed out while %d others waited", o.gains, len(o.live))
	}
	if o.lives > 7+noted {
		return fmt.Errorf("%d items were handed out while %d gained ones waited", o.lives, len(o.gain))
	}
	return nil
}

func (o *order) done(item cache.ObjectName, completed bool) {
	delete(o.inFlight, item)
	if o.unsure[item] = !completed || !o.owned(item) || time.Now().Before(o.timers[item]); !o.unsure[item] && o.again[item] {
		o.live[item] = o.m.Token(item.String())
	}
	delete(o.again, item)
}
