// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"

	"github.com/tom-ludwig/operator-scaling/shard/internal/leaseserver"
)

// Cluster is an in-memory API server for Leases and, with less detail, for other objects. It has the
// semantics that ownership depends on and that client-go's fake clientset lacks: writes on the
// condition of a resourceVersion and a UID, conflicts, preconditions of deletions, an increasing
// resourceVersion, and watches in order that honor their selectors. Leases are also validated.
//
// Each member gets its own client, so that a test can make its requests fail. All members
// share the objects.
// All methods may be called from any goroutine.
type Cluster struct {
	mu       sync.Mutex
	server   *leaseserver.Leases
	objects  *leaseserver.Store[stored] // other than Leases
	watchers map[*watcher]bool
	faults   map[string]Fault
}

// A Fault is what happens to a request of one member.
type Fault uint8

const (
	// None: no fault; the request reaches the server and its sender gets the response.
	None Fault = iota
	// Unreachable: the request fails before it reaches the server.
	Unreachable
	// LostAnswer: the request is carried out, but the client gets an error.
	LostAnswer
)

// ErrFault is the error of a request that [Cluster.Break] makes fail.
var ErrFault = errors.New("shardtest: no response from the API server")

// NewCluster returns an empty cluster.
func NewCluster() *Cluster {
	newUID := func() string { return string(uuid.NewUUID()) }
	objects := leaseserver.NewStore[stored]()
	objects.Revision, objects.NewUID = 1, newUID
	return &Cluster{server: leaseserver.NewLeases(newUID), objects: objects, watchers: map[*watcher]bool{}, faults: map[string]Fault{}}
}

// Client returns the clientset of a member. All members share the objects. Those that are given
// are created first, unless they exist. For objects other than Leases, see [Cluster.Share].
func (c *Cluster) Client(member string, objects ...runtime.Object) *fake.Clientset {
	client := fake.NewClientset()
	c.Share(member, &client.Fake, scheme.Scheme)
	shared := &tracker{c, scheme.Scheme}
	for _, obj := range objects {
		if err := shared.Add(obj); err != nil {
			panic(err)
		}
	}
	client.PrependReactor("*", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
		switch c.fault(member) {
		case Unreachable:
			return true, nil, ErrFault
		case LostAnswer:
			_, _ = c.serve(action)
			return true, nil, ErrFault
		}
		obj, err := c.serve(action)
		return true, obj, err
	})
	client.PrependWatchReactor("leases", func(action clienttesting.Action) (bool, watch.Interface, error) {
		if c.fault(member) != None {
			return true, nil, ErrFault
		}
		return true, c.watch(member, action.(clienttesting.WatchAction)), nil
	})
	return client
}

// Break makes all further requests of a member fail in the given way, and stops the
// delivery of new events to its watches. With None it clears the fault and closes the
// member's watches, so that the client starts them again.
func (c *Cluster) Break(member string, f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults[member] = f
	if f == None {
		for w := range c.watchers {
			if w.member == member {
				c.end(w)
			}
		}
	}
}

// ClearFault clears the fault of a member's requests, but leaves its watches open and dead: they
// show neither what happened since Break nor anything that happens later, as on a
// connection that is dead without an error.
func (c *Cluster) ClearFault(member string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults[member] = None
	for w := range c.watchers {
		if w.member == member {
			w.dead = true
		}
	}
}

func (c *Cluster) fault(member string) Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.faults[member]
}

// Leases returns all Leases of a namespace, sorted by name. metav1.NamespaceAll means all namespaces.
func (c *Cluster) Leases(namespace string) []coordinationv1.Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server.List(namespace, nil).Items
}

// History returns every state of every Lease, in the order of the writes.
// A deletion is an entry with a deletionTimestamp.
func (c *Cluster) History() []coordinationv1.Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server.History()
}

// Put creates or overwrites a Lease without any condition, as a user with kubectl would.
func (c *Cluster) Put(lease *coordinationv1.Lease) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server.Put(lease, time.Now())
	c.show()
}

// Remove deletes a Lease without any condition. It does nothing if there is none.
func (c *Cluster) Remove(namespace, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.server.Delete(namespace, name, nil, time.Now())
	c.show()
}

// serve carries out one request.
func (c *Cluster) serve(action clienttesting.Action) (runtime.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.show()
	switch a := action.(type) {
	case clienttesting.UpdateAction: // a CreateAction has the same methods
		l := a.GetObject().(*coordinationv1.Lease).DeepCopy()
		l.Namespace = a.GetNamespace()
		if action.GetVerb() == "create" {
			return c.server.Create(l, time.Now())
		}
		return c.server.Update(l, time.Now())
	case clienttesting.DeleteAction:
		return nil, c.server.Delete(a.GetNamespace(), a.GetName(), a.GetDeleteOptions().Preconditions, time.Now())
	case clienttesting.GetAction:
		return c.server.Get(a.GetNamespace(), a.GetName())
	case clienttesting.ListAction:
		return c.server.List(a.GetNamespace(), a.GetListRestrictions().Labels), nil
	}
	return nil, fmt.Errorf("shardtest: verb %q is not supported for Leases", action.GetVerb())
}

// watcher is one watch. It buffers all events until its client reads them, so that no
// write waits for the client.
type watcher struct {
	member  string
	cluster *Cluster
	cursor  interface{ Events() []watch.Event }
	events  chan watch.Event
	ended   bool
	dead    bool // it shows no events any more
}

// watchBuffer is how many events a watch buffers before it is closed: its client then
// starts again from a list, as after a compaction of etcd.
const watchBuffer = 10_000

func (c *Cluster) watch(member string, a clienttesting.WatchAction) watch.Interface {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := a.GetWatchRestrictions()
	return c.addWatcher(member, c.server.Watch(a.GetNamespace(), r.Labels, r.ResourceVersion, initialEvents(a)))
}

func (c *Cluster) addWatcher(member string, cursor interface{ Events() []watch.Event }) *watcher {
	w := &watcher{member: member, cluster: c, events: make(chan watch.Event, watchBuffer), cursor: cursor}
	c.watchers[w] = true
	w.show()
	return w
}

// initialEvents reports whether a watch begins with a streamed list.
func initialEvents(a clienttesting.WatchAction) bool {
	withOptions, ok := a.(interface{ GetListOptions() metav1.ListOptions })
	return ok && withOptions.GetListOptions().SendInitialEvents != nil && *withOptions.GetListOptions().SendInitialEvents
}

// show delivers new events to the watches of members without a fault.
func (c *Cluster) show() {
	for _, w := range slices.Collect(maps.Keys(c.watchers)) {
		w.show()
	}
}

// show delivers the events since the last call, or drops them if they cannot reach the client.
func (w *watcher) show() {
	for _, event := range w.cursor.Events() {
		if w.ended || w.dead || w.cluster.faults[w.member] != None {
			return
		}
		select {
		case w.events <- event:
		default:
			w.cluster.end(w)
		}
	}
}

func (c *Cluster) end(w *watcher) {
	if !w.ended {
		w.ended = true
		delete(c.watchers, w)
		close(w.events)
	}
}

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.events }

// Stop implements watch.Interface.
func (w *watcher) Stop() {
	w.cluster.mu.Lock()
	defer w.cluster.mu.Unlock()
	w.cluster.end(w)
}
