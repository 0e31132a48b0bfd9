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
	"sync/atomic"
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
// synctest bubble. It records problems and fails no test itself, because some
// tests expect problems.
type fleet struct {
	id      string // unique, so that no two fleets share the locks of their Pods
	rand    *rand.Rand
	trace   func(format string, args ...any)
	cluster *shardtest.Cluster
	objects *objects
	server  *server
	x       shardtest.Exclusive

	settling atomic.Bool // no work that begins now takes long
	next     int
	spans    []span              // the faults so far
	replicas map[string]*replica // by name of the process
	crashed  []*replica          // paused forever

	mu       sync.Mutex // guards the fields below
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

// problem records the violation of a guarantee.
func (f *fleet) problem(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := time.Now().Format("15:04:05.000 ") + fmt.Sprintf(format, args...)
	f.problems = append(f.problems, text)
	f.trace("PROBLEM %s", text)
}

// note logs what happens to the object that the flags select.
func (f *fleet) note(key, format string, args ...any) {
	if key == *lookAt {
		f.trace(key+": "+format, args...)
	}
}

// failed returns the problems so far.
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
	client  *faultyClient
	queue   shard.Queue[cache.ObjectName]
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
	idle   time.Time // when the last of them ended, or the last response to their writes arrived
	frozen bool      // it was paused for so long that a drain may have timed out
	synced time.Time // when its informer was first seen to have synced
}

// job is a reconcile in progress.
type job struct {
	key     string
	version string
	ctx     context.Context
	work    *shardtest.Work // nil while the process is paused, and after a pause if the job may not continue
}

// start starts a process. Most of its reconciles take up to slow.
func (f *fleet) start(name, pod, uid string, slow time.Duration) {
	r := &replica{fleet: f, name: name, uid: uid, done: make(chan struct{}), jobs: map[*job]bool{}}
	r.client = newFaultyClient(f.cluster.Client(name), f.rand.Uint64())
	s, err := shard.New(r.client, shard.Config{
		Name: "foo", PodName: pod, Namespace: namespace, PodUID: f.id + uid,
		Partitions: 61, DeletionWindow: time.Hour,
		DrainGrace: []time.Duration{-1, time.Second, shard.DefaultDrainGrace}[f.rand.IntN(3)],
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
	r.running.Go(func() { r.watchReadiness(informing) })
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

// ownsNothingFor is how long a member may be ready and healthy while it owns no key: three lease
// durations. The owner may be paused for most of the first two, and then the member's own watch may be
// dead until it is relisted.
const ownsNothingFor = 3 * shard.DefaultLeaseDuration

// watchReadiness reports a problem if neither probe shows that the member can own nothing.
func (r *replica) watchReadiness(ctx context.Context) {
	for since := time.Now(); ctx.Err() == nil; pause(ctx, time.Second) {
		r.mu.Lock()
		frozen := r.paused != nil
		r.mu.Unlock()
		if frozen || r.Ready() != nil || r.Healthy() != nil || r.ownsAnything() {
			since = time.Now()
		} else if d := time.Since(since); d > ownsNothingFor {
			r.fleet.problem("%s is ready and healthy, and has owned nothing for %v", r.name, d)
			return
		}
	}
}

func (r *replica) ownsAnything() bool {
	for i := range objectCount {
		if r.OwnsKey("default/" + objectName(i)) {
			return true
		}
	}
	return false
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

// reconcile works on one object for a while. It may ignore its context. Half of the time it
// writes.
func (r *replica) reconcile(item cache.ObjectName, slow time.Duration, random *rand.Rand) {
	identity := r.Identity()
	j := r.begin(item)
	switch kind := random.IntN(100); {
	case kind == 0: // until it is interrupted
		d := time.Duration(random.Int64N(int64(45 * time.Second)))
		if r.fleet.settling.Load() { // two of these one after the other would take longer than settle waits
			d = min(d, slow)
		}
		pause(j.ctx, d)
	case kind < 10: // ignores its context
		time.Sleep(time.Duration(random.Int64N(int64(ignoreContextFor))))
	default:
		pause(j.ctx, time.Duration(random.Int64N(int64(slow))))
	}
	r.waitWhilePaused(j)
	var err error
	if random.IntN(2) == 0 {
		err = r.write(j, random)
		r.waitWhilePaused(j)
	}
	if random.IntN(20) == 0 {
		err = errors.New("a random failure")
	}
	completed, interrupted := r.end(j, err == nil)
	interrupted = interrupted || errors.Is(err, shard.ErrLostOwnership)
	if now := r.Identity(); now != identity {
		r.fleet.problem("%s has become %s while it was working on %s", identity, now, j.key)
	}
	switch {
	case interrupted && random.IntN(4) > 0:
		// As ErrDraining and ErrFenced require, it does not add the item again.
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

// write sends a write and waits for the response: without a limit, or with a context that
// is cancelled after a while, or it stops waiting after a while.
func (r *replica) write(j *job, random *rand.Rand) error {
	while := time.Duration(random.Int64N(int64(time.Second)))
	switch random.IntN(4) {
	case 0:
		ctx, cancel := context.WithCancel(j.ctx)
		defer cancel()
		defer time.AfterFunc(while, cancel).Stop()
		return r.fleet.server.write(ctx, r, j.key)
	case 1:
		responded := make(chan error, 1)
		r.running.Go(func() {
			err := r.fleet.server.write(j.ctx, r, j.key)
			r.mu.Lock()
			r.idle = time.Now() // a drain waits for this, too
			r.mu.Unlock()
			responded <- err
		})
		select {
		case err := <-responded:
			return err
		case <-j.ctx.Done():
			return context.Cause(j.ctx)
		case <-time.After(while):
			return errors.New("stopped waiting for the response")
		}
	}
	return r.fleet.server.write(j.ctx, r, j.key)
}

// ignoreContextFor is how long work may continue after its context has ended. The Lease ends six
// seconds after the fence, and a write may take a part of that time.
const ignoreContextFor = 3 * time.Second

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
	r.waitWhilePaused(j)
	return j
}

// waitWhilePaused blocks while the process is paused. The items that a paused process holds do not
// count as work. They count again when the process resumes and is not fenced.
func (r *replica) waitWhilePaused(j *job) {
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

// at reports whether the process is working on a key.
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

// block stops only the loop for a while, as a log sink that blocks would.
func (r *replica) block(d time.Duration) {
	blocked, end := context.WithTimeout(context.Background(), d)
	r.Hold(blocked)
	go func() {
		<-blocked.Done()
		end()
	}()
}

// unpause ends the pause.
func (r *replica) unpause() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused != nil {
		r.resume()
		r.paused = nil
	}
}

// end stops a process and everything that belongs to it.
func (f *fleet) end(name string) {
	r := f.replicas[name]
	delete(f.replicas, name)
	f.awaitEnd(r)
	if r.err != nil && !(errors.Is(r.err, shard.ErrDrainTimeout) && r.frozen) {
		f.problem("%s: Run returned %v", name, r.err)
	}
}

// endAtWork stops a healthy process that has work in flight. Run must return soon after
// its last piece of work has ended.
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

func (f *fleet) awaitEnd(r *replica) {
	r.unpause()
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

// versions returns the last version of every object that ever existed: "gone" for objects
// that were deleted after all informers had synced. A new member does not know of other
// deletions.
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
