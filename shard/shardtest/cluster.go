// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// Cluster is an in-memory API server for Leases, with the semantics that ownership
// depends on and that client-go's fake clientset lacks: writes on the condition of a
// resourceVersion and a UID, conflicts, preconditions of deletions, one increasing
// resourceVersion, and watches in order.
//
// Each member gets its own client, so that a test can make its requests fail.
// All methods may be called from any goroutine.
type Cluster struct {
	mu       sync.Mutex
	version  uint64
	leases   map[types.NamespacedName]*coordinationv1.Lease
	watchers map[*watcher]bool
	faults   map[string]Fault
	history  []coordinationv1.Lease
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
	return &Cluster{
		version:  1,
		leases:   map[types.NamespacedName]*coordinationv1.Lease{},
		watchers: map[*watcher]bool{},
		faults:   map[string]Fault{},
	}
}

// Client returns the clientset of a member. Objects other than Leases exist only in this
// clientset, with the semantics of client-go's fake clientset.
func (c *Cluster) Client(member string, objects ...runtime.Object) *fake.Clientset {
	client := fake.NewClientset(objects...)
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
		w, err := c.watch(member, action.(clienttesting.WatchAction))
		return true, w, err
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

// Mend clears the fault of a member's requests, but leaves its watches open and dead: they
// show neither what happened since Break nor anything that happens later, as on a
// connection that is dead without an error.
func (c *Cluster) Mend(member string) {
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

// Leases returns all Leases of a namespace, sorted by name.
func (c *Cluster) Leases(namespace string) []coordinationv1.Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list(namespace, labels.Everything())
}

// History returns every state of every Lease, in the order of the writes.
// A deletion is an entry with a deletionTimestamp.
func (c *Cluster) History() []coordinationv1.Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.history)
}

// Put creates or overwrites a Lease without any condition, as a user with kubectl would.
func (c *Cluster) Put(lease *coordinationv1.Lease) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := types.NamespacedName{Namespace: lease.Namespace, Name: lease.Name}
	l := lease.DeepCopy()
	event := watch.Added
	if old := c.leases[name]; old != nil {
		l.UID, l.CreationTimestamp = old.UID, old.CreationTimestamp
		event = watch.Modified
	} else {
		l.UID, l.CreationTimestamp = uuid.NewUUID(), metav1.NewTime(time.Now().Truncate(time.Second))
	}
	c.store(name, l, event)
}

// Remove deletes a Lease without any condition. It does nothing if there is none.
func (c *Cluster) Remove(namespace, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(types.NamespacedName{Namespace: namespace, Name: name})
}

var resource = coordinationv1.Resource("leases")

// serve carries out one request.
func (c *Cluster) serve(action clienttesting.Action) (runtime.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch a := action.(type) {
	case clienttesting.UpdateAction: // a CreateAction has the same methods
		l := a.GetObject().(*coordinationv1.Lease).DeepCopy()
		l.Namespace = a.GetNamespace()
		if action.GetVerb() == "create" {
			return c.create(l)
		}
		return c.update(l)
	case clienttesting.DeleteAction:
		return nil, c.delete(types.NamespacedName{Namespace: a.GetNamespace(), Name: a.GetName()}, a.GetDeleteOptions())
	case clienttesting.GetAction:
		l := c.leases[types.NamespacedName{Namespace: a.GetNamespace(), Name: a.GetName()}]
		if l == nil {
			return nil, apierrors.NewNotFound(resource, a.GetName())
		}
		return l.DeepCopy(), nil
	case clienttesting.ListAction:
		return &coordinationv1.LeaseList{
			ListMeta: metav1.ListMeta{ResourceVersion: c.text()},
			Items:    c.list(a.GetNamespace(), a.GetListRestrictions().Labels),
		}, nil
	}
	return nil, fmt.Errorf("shardtest: verb %q is not supported for Leases", action.GetVerb())
}

func (c *Cluster) create(l *coordinationv1.Lease) (runtime.Object, error) {
	name := types.NamespacedName{Namespace: l.Namespace, Name: l.Name}
	if c.leases[name] != nil {
		return nil, apierrors.NewAlreadyExists(resource, l.Name)
	}
	l.UID, l.CreationTimestamp = uuid.NewUUID(), metav1.NewTime(time.Now().Truncate(time.Second))
	return c.store(name, l, watch.Added), nil
}

func (c *Cluster) update(l *coordinationv1.Lease) (runtime.Object, error) {
	name := types.NamespacedName{Namespace: l.Namespace, Name: l.Name}
	old := c.leases[name]
	switch {
	case old == nil && l.UID != "":
		return nil, apierrors.NewConflict(resource, l.Name, errors.New("the Lease was deleted"))
	case old == nil:
		return nil, apierrors.NewNotFound(resource, l.Name)
	case l.UID != "" && l.UID != old.UID, l.ResourceVersion != "" && l.ResourceVersion != old.ResourceVersion:
		return nil, apierrors.NewConflict(resource, l.Name, errors.New("the object has been modified"))
	}
	l.UID, l.CreationTimestamp = old.UID, old.CreationTimestamp
	return c.store(name, l, watch.Modified), nil
}

func (c *Cluster) delete(name types.NamespacedName, o metav1.DeleteOptions) error {
	old := c.leases[name]
	if old == nil {
		return apierrors.NewNotFound(resource, name.Name)
	}
	if p := o.Preconditions; p != nil {
		if p.UID != nil && *p.UID != old.UID || p.ResourceVersion != nil && *p.ResourceVersion != old.ResourceVersion {
			return apierrors.NewConflict(resource, name.Name, errors.New("a precondition does not hold"))
		}
	}
	c.remove(name)
	return nil
}

func (c *Cluster) store(name types.NamespacedName, l *coordinationv1.Lease, event watch.EventType) *coordinationv1.Lease {
	c.version++
	l.ResourceVersion = c.text()
	c.leases[name] = l
	c.history = append(c.history, *l.DeepCopy())
	c.tell(event, l)
	return l.DeepCopy()
}

func (c *Cluster) remove(name types.NamespacedName) {
	old := c.leases[name]
	if old == nil {
		return
	}
	delete(c.leases, name)
	c.version++
	gone := old.DeepCopy()
	gone.ResourceVersion = c.text()
	c.tell(watch.Deleted, gone)
	now := metav1.Now()
	gone.DeletionTimestamp = &now
	c.history = append(c.history, *gone)
}

func (c *Cluster) text() string { return strconv.FormatUint(c.version, 10) }

func (c *Cluster) list(namespace string, selector labels.Selector) []coordinationv1.Lease {
	var items []coordinationv1.Lease
	for name, l := range c.leases {
		if name.Namespace == namespace && selector.Matches(labels.Set(l.Labels)) {
			items = append(items, *l.DeepCopy())
		}
	}
	slices.SortFunc(items, func(a, b coordinationv1.Lease) int { return cmpString(a.Name, b.Name) })
	return items
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// watcher is one watch. It buffers all events until its client reads them, so that no
// write waits for the client.
type watcher struct {
	member    string
	namespace string
	selector  labels.Selector
	cluster   *Cluster
	events    chan watch.Event
	ended     bool
	dead      bool // it shows no events any more
}

// watchBuffer is how many events a watch buffers before it is closed: its client then
// starts again from a list, as after a compaction of etcd.
const watchBuffer = 10_000

func (c *Cluster) watch(member string, a clienttesting.WatchAction) (watch.Interface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	restrictions := a.GetWatchRestrictions()
	w := &watcher{member: member, namespace: a.GetNamespace(), selector: restrictions.Labels, cluster: c, events: make(chan watch.Event, watchBuffer)}
	since, err := strconv.ParseUint(restrictions.ResourceVersion, 10, 64)
	if err != nil {
		since = 0
	}
	for _, l := range c.since(since) {
		w.send(l.event, l.lease)
	}
	c.watchers[w] = true
	return w, nil
}

type change struct {
	event watch.EventType
	lease *coordinationv1.Lease
}

// since returns the changes after a resourceVersion.
func (c *Cluster) since(version uint64) []change {
	var changes []change
	known := map[types.UID]bool{}
	for i := range c.history {
		event := watch.Added
		switch {
		case c.history[i].DeletionTimestamp != nil:
			event = watch.Deleted
		case known[c.history[i].UID]:
			event = watch.Modified
		}
		known[c.history[i].UID] = true
		if at, _ := strconv.ParseUint(c.history[i].ResourceVersion, 10, 64); at > version {
			l := c.history[i].DeepCopy()
			l.DeletionTimestamp = nil
			changes = append(changes, change{event, l})
		}
	}
	return changes
}

func (c *Cluster) tell(event watch.EventType, l *coordinationv1.Lease) {
	for _, w := range slices.Collect(maps.Keys(c.watchers)) {
		if c.faults[w.member] == None {
			w.send(event, l.DeepCopy())
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

func (w *watcher) send(event watch.EventType, l *coordinationv1.Lease) {
	if w.ended || w.dead || l.Namespace != w.namespace || w.selector != nil && !w.selector.Matches(labels.Set(l.Labels)) {
		return
	}
	select {
	case w.events <- watch.Event{Type: event, Object: l}:
	default:
		w.cluster.end(w)
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
