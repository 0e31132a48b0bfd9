// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

var (
	seeds    = flag.Int("seeds", 2, "seeds of TestFaults to run")
	onlySeed = flag.Uint64("seed", 0, "run TestFaults with this seed only")
)

// fleet is a few replicas of an operator on ConfigMaps, in one process.
type fleet struct {
	t        *testing.T
	cluster  *shardtest.Cluster
	objects  *fake.Clientset // shared by all
	x        shardtest.Exclusive
	rand     *rand.Rand
	version  int
	replicas map[string]*replica
}

// replica is one of them, with workers.
type replica struct {
	*member
	queue   *workqueue.Queue[cache.ObjectName]
	factory informers.SharedInformerFactory
	workers sync.WaitGroup
	cancel  context.CancelFunc // of its informers
}

const objectCount = 150

func newFleet(t *testing.T, seed uint64) *fleet {
	f := &fleet{
		t: t, cluster: shardtest.NewCluster(), objects: fake.NewClientset(),
		rand: rand.New(rand.NewPCG(seed, seed)), replicas: map[string]*replica{},
	}
	for i := range objectCount {
		f.write(i)
	}
	return f
}

// write creates or changes one object.
func (f *fleet) write(i int) {
	f.version++
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("cm-%d", i), ResourceVersion: strconv.Itoa(f.version)}}
	maps := f.objects.CoreV1().ConfigMaps("default")
	if _, err := maps.Update(context.Background(), cm, metav1.UpdateOptions{}); err != nil {
		if _, err := maps.Create(context.Background(), cm, metav1.CreateOptions{}); err != nil {
			f.t.Fatal(err)
		}
	}
}

// start starts a replica whose reconciles take up to slow, and end at once when
// their context does.
func (f *fleet) start(pod string, slow time.Duration) *replica {
	r := &replica{}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	s, err := shard.New(f.cluster.Client(pod), shard.Config{Name: "foo", PodName: pod, Namespace: namespace, PodUID: pod + "-" + strconv.Itoa(f.version)})
	if err != nil {
		f.t.Fatal(err)
	}
	r.factory = informers.NewSharedInformerFactory(f.objects, 0)
	maps := shard.WrapInformer(s, r.factory.Core().V1().ConfigMaps().Informer(), shard.ByName)
	r.queue = shard.NewQueue(s, clientworkqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](5*time.Millisecond, 10*time.Second))
	enqueue := func(obj any) {
		if name, err := cache.DeletionHandlingObjectToName(obj); err == nil {
			r.queue.Add(name)
		}
	}
	if _, err := maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, obj any) { enqueue(obj) }, DeleteFunc: enqueue}); err != nil {
		f.t.Fatal(err)
	}
	lister := r.factory.Core().V1().ConfigMaps().Lister()
	for worker := range 4 {
		random := rand.New(rand.NewPCG(uint64(worker), uint64(f.version)))
		r.workers.Go(func() {
			for {
				item, shutdown := r.queue.Get()
				if shutdown {
					return
				}
				version := "gone"
				if cm, err := lister.ConfigMaps(item.Namespace).Get(item.Name); err == nil {
					version = cm.ResourceVersion
				}
				work := f.x.Begin(pod, item.String(), version)
				itemCtx := r.queue.Context(ctx, item)
				select {
				case <-time.After(time.Duration(random.Int64N(int64(slow)))):
				case <-itemCtx.Done():
				}
				completed := itemCtx.Err() == nil
				work.End(completed)
				if completed {
					r.queue.Forget(item)
				} else {
					r.queue.AddRateLimited(item)
				}
				r.queue.Done(item)
			}
		})
	}
	r.factory.Start(ctx.Done())
	m := &member{Sharder: s, done: make(chan error, 1)}
	runCtx, stop := context.WithCancel(context.Background())
	m.stop = stop
	go func() { m.done <- s.Run(runCtx) }()
	r.member = m
	f.replicas[pod] = r
	return r
}

// end stops a replica and all that belongs to it.
func (f *fleet) end(pod string) {
	r := f.replicas[pod]
	delete(f.replicas, pod)
	if err := r.member.end(); err != nil && !errors.Is(err, shard.ErrStaleWatch) {
		f.t.Errorf("%s: Run returned %v", pod, err)
	}
	r.queue.ShutDown()
	r.workers.Wait()
	r.cancel()
	r.factory.Shutdown()
}

// TestFaults is a fleet under changes of members, unreachable API servers, lost
// answers, dead watches and deleted Leases, with objects that change all the time.
// At no time may two work on one object, and at the end each must have been worked on
// at its last version.
func TestFaults(t *testing.T) {
	first, n := uint64(1), *seeds
	if *onlySeed != 0 {
		first, n = *onlySeed, 1
	}
	for seed := first; seed < first+uint64(n); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { faults(t, seed) })
			if t.Failed() {
				t.Logf("replay with: go test ./shard -run 'TestFaults' -seed=%d -v", seed)
			}
		})
	}
}

func faults(t *testing.T, seed uint64) {
	f := newFleet(t, seed)
	next := 0
	join := func() {
		f.start(fmt.Sprintf("op-%d", next), time.Duration(1+f.rand.IntN(1000))*time.Millisecond)
		next++
	}
	anyone := func() string {
		names := []string{}
		for name := range f.replicas {
			names = append(names, name)
		}
		if len(names) == 0 {
			return ""
		}
		slices.Sort(names)
		return names[f.rand.IntN(len(names))]
	}
	for range 3 {
		join()
	}
	trace := func(format string, args ...any) {
		if *onlySeed != 0 {
			t.Logf(time.Now().Format("15:04:05.000 ")+format, args...)
		}
	}
	for range 25 {
		for range f.rand.IntN(40) {
			f.write(f.rand.IntN(objectCount))
			time.Sleep(time.Duration(f.rand.IntN(50)) * time.Millisecond)
		}
		who := anyone()
		switch kind := f.rand.IntN(9); {
		case kind <= 1 && len(f.replicas) < 5:
			trace("join op-%d", next)
			join()
		case kind == 2 && len(f.replicas) > 2:
			trace("stop %s", who)
			f.end(who)
		case kind == 3:
			trace("unreachable %s", who)
			f.cluster.Break(who, shardtest.Unreachable)
		case kind == 4:
			trace("lost answers %s", who)
			f.cluster.Break(who, shardtest.LostAnswer)
		case kind == 5:
			trace("dead watch %s", who)
			f.cluster.Mend(who)
		case kind == 6:
			trace("heal all")
			for name := range f.replicas {
				f.cluster.Break(name, shardtest.None)
			}
		case kind == 7:
			trace("delete the Lease of %s", who)
			f.cluster.Remove(namespace, "foo-"+who)
		}
		time.Sleep(time.Duration(f.rand.IntN(12_000)) * time.Millisecond)
	}
	trace("end of the faults")
	for name := range f.replicas {
		f.cluster.Break(name, shardtest.None)
	}
	// A member whose watch is dead for too long ends, as it should.
	time.Sleep(90 * time.Second)
	for name, r := range f.replicas {
		select {
		case err := <-r.done:
			trace("%s has ended: %v", name, err)
			r.done <- err
			f.end(name)
		default:
		}
	}
	for len(f.replicas) < 2 {
		join()
	}
	time.Sleep(60 * time.Second)

	var members []*member
	for _, r := range f.replicas {
		members = append(members, r.member)
	}
	for key, who := range owners(members...) {
		if len(who) != 1 {
			t.Fatalf("%s is owned by %q", key, who)
		}
	}
	want := map[string]string{}
	list, err := f.objects.CoreV1().ConfigMaps("default").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, cm := range list.Items {
		want[cm.Namespace+"/"+cm.Name] = cm.ResourceVersion
	}
	if lost := f.x.Lost(want); len(lost) > 0 {
		t.Errorf("%d objects were not worked on at their last version: %v", len(lost), lost[:min(5, len(lost))])
	}
	if overlaps := f.x.Overlaps(); len(overlaps) > 0 {
		t.Errorf("%d overlaps; the first: %v", len(overlaps), overlaps[0])
	}
	if f.x.Total() < objectCount {
		t.Errorf("only %d pieces of work: the run proves nothing", f.x.Total())
	}
	for name := range f.replicas {
		f.end(name)
	}
}
