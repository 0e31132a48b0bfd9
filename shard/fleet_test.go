// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// fleet is a few replicas of an operator on ConfigMaps, in one process and one
// synctest bubble. It notes what goes wrong and fails no test itself, because there
// are tests that want it to go wrong.
type fleet struct {
	id      string // no two fleets share the locks of their Pods
	rand    *rand.Rand
	trace   func(format string, args ...any)
	cluster *shardtest.Cluster
	objects *objects
	server  *server
	x       shardtest.Exclusive

	next     int
	replicas map[string]*replica // by name of the process
	crashed  []*replica          // crashed: paused for ever

	mu       sync.Mutex // guards what follows
	everyone []*replica
	problems []string
}

func newFleet(seed uint64, trace func(format string, args ...any)) *fleet {
	f := &fleet{
		id: string(uuid.NewUUID()), rand: rand.New(rand.NewPCG(seed, seed)), trace: trace,
		cluster: shardtest.NewCluster(), objects: newObjects(), replicas: map[string]*replica{},
	}
	f.server = &server{fleet: f, rand: rand.New(rand.NewPCG(seed, 1)), last: map[string]write{}}
	return f
}

// problem notes that a promise was broken.
func (f *fleet) problem(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := time.Now().Format("15:04:05.000 ") + fmt.Sprintf(format, args...)
	f.problems = append(f.problems, text)
	f.trace("PROBLEM %s", text)
}

// note tells what happens to the object that is looked at.
func (f *fleet) note(key, format string, args ...any) {
	if key == *lookAt {
		f.trace(key+": "+format, args...)
	}
}

// failed returns what has gone wrong so far.
func (f *fleet) failed() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := slices.Clone(f.problems)
	for _, overlap := range f.x.Overlaps() {
		found = append(found, "two at work on "+overlap.String())
	}
	return found
}

// replica is one process.
type replica struct {
	*shard.Sharder
	fleet   *fleet
	name    string // of the process; two may have the identity of one Pod
	uid     string // of the Pod
	wire    *faultyClient
	queue   *workqueue.Queue[cache.ObjectName]
	maps    cache.SharedIndexInformer
	stop    context.CancelFunc
	done    chan struct{} // closed when Run has returned
	err     error         // what it returned
	ended   time.Time     // and when
	running sync.WaitGroup
	halt    context.CancelFunc // of the informer

	mu     sync.Mutex
	paused context.Context // nil while the process runs; ends with the pause
	resume context.CancelFunc
	jobs   map[*job]bool
	idle   time.Time // when the last of them has ended, or the last of their writes was answered
	frozen bool      // it was paused for so long that a drain may have timed out
	synced time.Time // when its informer was first seen to have synced
}

// job is a reconcile under way.
type job struct {
	key     string
	version string
	ctx     context.Context
	work    *shardtest.Work // nil while the process is paused, and after a pause if the job may not go on
}

// start starts a process. Its reconciles take up to slow, but for some.
func (f *fleet) start(name, pod, uid string, slow time.Duration) {
	r := &replica{fleet: f, name: name, uid: uid, done: make(chan struct{}), jobs: map[*job]bool{}}
	r.wire = newFaultyClient(f.cluster.Client(name), f.rand.Uint64())
	s, err := shard.New(r.wire, shard.Config{
		Name: "foo", PodName: pod, Namespace: namespace, PodUID: f.id + uid,
		Partitions: 61, DeletionWindow: time.Hour,
	})
	if err != nil {
		f.problem("%v", err)
		return
	}
	r.Sharder = s
	r.maps = shard.NewInformer(s, f.objects.listWatch(time.Duration(f.rand.Int64N(int64(3*time.Second)))), &corev1.ConfigMap{}, 0, cache.Indexers{})
	r.queue = shard.NewQueue(s, clientworkqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](5*time.Millisecond, 10*time.Second))
	enqueue := func(obj any) {
		if name, err := cache.DeletionHandlingObjectToName(obj); err == nil {
			r.queue.Add(name)
		}
	}
	if _, err := r.maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, obj any) { enqueue(obj) }, DeleteFunc: enqueue}); err != nil {
		f.problem("%v", err)
	}
	for range 8 {
		random := rand.New(rand.NewPCG(f.rand.Uint64(), 0))
		r.running.Go(func() { r.reconcileAll(slow, random) })
	}
	var informing, serving context.Context
	informing, r.halt = context.WithCancel(context.Background())
	serving, r.stop = context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	r.running.Go(func() { r.maps.RunWithContext(informing) })
	r.running.Go(func() {
		for !r.maps.HasSynced() && informing.Err() == nil {
			if r.Ready() == nil {
				f.problem("%s is ready before its informer has synced", r.name)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		r.mu.Lock()
		r.synced = time.Now()
		r.mu.Unlock()
	})
	go func() {
		defer close(r.done)
		r.err = s.Run(serving)
		r.ended = time.Now()
	}()
	f.replicas[name] = r
	f.mu.Lock()
	f.everyone = append(f.everyone, r)
	f.mu.Unlock()
}

func (r *replica) reconcileAll(slow time.Duration, random *rand.Rand) {
	for {
		item, shutdown := r.queue.Get()
		if shutdown {
			return
		}
		r.reconcile(item, slow, random)
	}
}

// reconcile works on one object: for a while, with or without an eye on its
// context, and half of the times it writes.
func (r *replica) reconcile(item cache.ObjectName, slow time.Duration, random *rand.Rand) {
	identity := r.Identity()
	j := r.begin(item)
	switch kind := random.IntN(100); {
	case kind == 0: // until it is broken off
		pause(j.ctx, time.Duration(random.Int64N(int64(45*time.Second))))
	case kind < 10: // deaf
		time.Sleep(time.Duration(random.Int64N(int64(deaf))))
	default:
		pause(j.ctx, time.Duration(random.Int64N(int64(slow))))
	}
	r.gate(j)
	var err error
	if random.IntN(2) == 0 {
		err = r.write(j, random)
		r.gate(j)
	}
	if random.IntN(20) == 0 {
		err = errors.New("one of those errors")
	}
	completed, interrupted := r.end(j, err == nil)
	interrupted = interrupted || errors.Is(err, shard.ErrLostOwnership)
	if now := r.Identity(); now != identity {
		r.fleet.problem("%s has become %s while it was working on %s", identity, now, j.key)
	}
	switch {
	case interrupted && random.IntN(4) > 0:
		// It does what ErrDraining and ErrFenced say: nothing.
	case completed:
		r.queue.Forget(item)
		if random.IntN(20) == 0 {
			r.queue.AddAfter(item, time.Duration(random.Int64N(int64(10*time.Second))))
		}
	default:
		r.queue.AddRateLimited(item)
	}
	r.queue.Done(item)
}

// write sends a write and waits for the answer: patiently, or by a context that is
// cancelled after a while, or not at all after a while.
func (r *replica) write(j *job, random *rand.Rand) error {
	while := time.Duration(random.Int64N(int64(time.Second)))
	switch random.IntN(4) {
	case 0:
		ctx, cancel := context.WithCancel(j.ctx)
		defer cancel()
		defer time.AfterFunc(while, cancel).Stop()
		return r.fleet.server.write(ctx, r, j.key)
	case 1:
		answered := make(chan error, 1)
		r.running.Go(func() {
			err := r.fleet.server.write(j.ctx, r, j.key)
			r.mu.Lock()
			r.idle = time.Now() // a drain has waited for this, too
			r.mu.Unlock()
			answered <- err
		})
		select {
		case err := <-answered:
			return err
		case <-j.ctx.Done():
			return context.Cause(j.ctx)
		case <-time.After(while):
			return errors.New("lost patience")
		}
	}
	return r.fleet.server.write(j.ctx, r, j.key)
}

// deaf is how long work may go on after its context has ended: from the fence to the
// end of the Lease it is six seconds, and a write may take a part of them.
const deaf = 3 * time.Second

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (r *replica) begin(item cache.ObjectName) *job {
	j := &job{key: item.String(), version: "gone", ctx: r.queue.Context(context.Background(), item)}
	if obj, exists, _ := r.maps.GetStore().GetByKey(j.key); exists {
		j.version = obj.(metav1.Object).GetResourceVersion()
	}
	r.fleet.note(j.key, "%s begins at %s", r.name, j.version)
	r.mu.Lock()
	r.jobs[j] = true
	if r.paused == nil {
		j.work = r.fleet.x.Begin(r.name, j.key, j.version)
	}
	r.mu.Unlock()
	r.gate(j)
	return j
}

// gate lets nobody pass while the process is paused. What a paused process has in
// hand is no work: it counts again when the process goes on and believes that it may.
func (r *replica) gate(j *job) {
	for {
		r.mu.Lock()
		paused := r.paused
		if paused == nil {
			if j.work == nil && workqueue.Check(j.ctx) == nil {
				j.work = r.fleet.x.Begin(r.name, j.key, j.version)
			}
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		<-paused.Done()
	}
}

func (r *replica) end(j *job, well bool) (completed, interrupted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.jobs, j)
	r.idle = time.Now()
	cause := workqueue.Check(j.ctx)
	interrupted = errors.Is(cause, shard.ErrDraining) || errors.Is(cause, shard.ErrFenced)
	completed = well && j.work != nil && cause == nil
	if j.work != nil {
		j.work.End(completed)
	}
	r.fleet.note(j.key, "%s ends at %s: completed %v, context %v", r.name, j.version, completed, context.Cause(j.ctx))
	return completed, interrupted
}

// at reports whether the process is at work on a key.
func (r *replica) at(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for j := range r.jobs {
		if j.key == key && j.work != nil {
			return true
		}
	}
	return false
}

// pause stops the process as SIGSTOP would: its loop, its fence and its workers.
func (r *replica) pause() {
	r.mu.Lock()
	if r.paused != nil {
		r.mu.Unlock()
		return
	}
	r.paused, r.resume = context.WithCancel(context.Background())
	for j := range r.jobs {
		if j.work != nil {
			j.work.End(false)
			j.work = nil
		}
	}
	paused := r.paused
	r.mu.Unlock()
	go r.Pause(paused)
}

// block stops the loop alone for a while, as a log sink that blocks would.
func (r *replica) block(d time.Duration) {
	blocked, end := context.WithTimeout(context.Background(), d)
	r.Hold(blocked)
	go func() {
		<-blocked.Done()
		end()
	}()
}

// goOn ends the pause.
func (r *replica) goOn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused != nil {
		r.resume()
		r.paused = nil
	}
}

// end stops a process and all that belongs to it.
func (f *fleet) end(name string) {
	r := f.replicas[name]
	delete(f.replicas, name)
	f.bury(r)
	if r.err != nil && !(errors.Is(r.err, shard.ErrDrainTimeout) && r.frozen) {
		f.problem("%s: Run returned %v", name, r.err)
	}
}

// endAtWork stops a process that nothing is wrong with and that has work in hand. It
// must be over soon after its last piece of work.
func (f *fleet) endAtWork(name string) {
	r := f.replicas[name]
	f.change(40)
	last := time.Now()
	f.end(name)
	if r.idle.After(last) {
		last = r.idle
	}
	if late := r.ended.Sub(last); late > time.Second {
		f.problem("%s has left %v after its last work", name, late)
	}
}

func (f *fleet) bury(r *replica) {
	r.goOn()
	r.stop()
	select {
	case <-r.done:
	case <-time.After(5 * time.Minute):
		f.problem("%s: Run has not returned", r.name)
		<-r.done
	}
	r.queue.ShutDown()
	r.halt()
	r.running.Wait()
}

// versions are those of all objects that there have been: "gone" for those that
// were deleted when all informers had synced. A newcomer knows of no others.
func (f *fleet) versions() map[string]string {
	last := time.Time{}
	for _, r := range f.replicas {
		r.mu.Lock()
		if r.synced.After(last) {
			last = r.synced
		}
		r.mu.Unlock()
	}
	return f.objects.versions(last)
}

func objectName(i int) string { return "cm-" + strconv.Itoa(i) }
