// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"fmt"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// A filter sits between the inner informer and one handler.
//
// Two goroutines call the handler: the inner informer's goroutine, with the stream of events,
// and Replay's goroutine, with the results of a change of ownership. The filter makes each
// call with mu held, and in the same critical section checks the ownership and records what
// was delivered. So the handler sees one order.
//
// Why nothing is lost: the inner informer changes its store before it notifies a handler.
// Assume that the stream delivers version v of an object and the filter drops it, because
// State does not return Active. If the partition becomes active later, Activated is called
// after State returns Active, and the replay that it requests reads the store later still: it
// finds v or a later version, and delivers that. If the partition had been active already, the
// event would not have been dropped. It does not matter whether Activated was called before or
// after the drop; it only matters that the drop called State before the activation was
// published. An update of an object that the handler knows is only dropped if State returns
// NotOwned, and then Released follows, before any activation: the handler forgets the object,
// and the replay delivers it again. While State returns Pending, for a drain, the handler
// continues to see what it knows: the drain may be called off, and then no replay delivers it.
//
// Therefore a replay may overtake the stream, but never the other way round. The objects that
// a replay has delivered are in ahead until the stream has reached the version that was
// delivered. Objects that are not in ahead are delivered as they come, whatever their
// versions are.
//
// Why the stream reaches each version in ahead: the replay took it from the store, so the
// stream has delivered or dropped the event that stored it, or will do so. In the first case
// the next event of the object starts from that version, or deletes it.
//
// Invariant: for each object in shown, the handler has seen every event that the stream has
// delivered, or a later version that supersedes it. So a replay has nothing to add for these
// objects: the stream will deliver what is still missing.
type filter struct {
	informer *Informer
	handler  cache.ResourceEventHandler
	released func(obj any) // the handler's OnReleased; nil if it has none
	gained   func(obj any) // the handler's OnGained; nil if it has none
	// passes is the filter of a cache.FilteringResourceEventHandler; nil if it is none.
	passes     func(obj any) bool
	logger     *klog.Logger // nil: the default
	changes    changeQueue
	removed    chan struct{} // closed, with Informer.mu held, when the handler is removed
	finished   chan struct{} // closed when a removed handler is not called any more
	replayed   chan struct{} // closed by endFirst
	endFirst   func()        // called when the first activation was processed, or the handler was removed
	registered bool          // with the inner informer; guarded by Informer.mu
	working    bool          // a goroutine of Replay serves it; guarded by Informer.mu
	counts     counters

	// cleared: the handler was removed, and whoever unlocks mu empties the filter, unless another
	// goroutine takes mu first. A call of the handler may have removed it. So each call is made after
	// a look at cleared, with mu held.
	cleared atomic.Bool

	mu    mutex
	empty bool // tryClear is done
	// complete are the partitions of which the handler knows every object.
	complete complete
	outdated uint64        // so many of the first scans may lack objects that the handler does not know
	shown    map[id]uint64 // the objects that the handler knows, and their points; in passing, their states
	peak     int           // the size that shown has had
	// names identify the objects in shown for OnReleased; nil without it.
	names map[id]named
	// ahead is what a replay has delivered last, of the objects in shown that the stream may
	// not have reached yet.
	ahead map[id]version
	// highest is at least the highest version in ahead. When the stream delivers a higher one,
	// it has reached everything in ahead, because a watch stores and delivers events in the
	// order of their versions. (A list does not, so the stream may then still deliver versions
	// that were in ahead; update and OnAdd tolerate that.)
	highest uint64
	// observed is the last deletion that the stream has delivered or dropped. Others follow in
	// the order of their numbers, and the stream will deliver them itself, unless they are
	// not later than since: the last deletion when the handler was added. Set before registered.
	observed, since uint64
	// delivered are the deletions that were delivered to the handler while this member owned
	// the partition, and has not released it since: the point of each number.
	delivered map[uint64]uint64
	// late are the objects that passing shows again when the stream has reached them: true as an
	// Add, because the handler has seen the deletion of an earlier object of that name since.
	late      map[id]bool
	activated bool // the first activation was processed
}

// named is what OnReleased needs of an object.
type named struct {
	key    string
	uid    types.UID
	passed bool // the handler's own filter, in the version that was delivered last
}

// version identifies a state of an object.
type version struct {
	uid     types.UID
	version string
}

func versionOf(m metav1.Object) version { return version{m.GetUID(), m.GetResourceVersion()} }

// is reports whether a and b are the same state, as far as can be determined.
func (a version) is(b version) bool { return a.version == b.version && !differ(a.uid, b.uid) }

func newFilter(i *Informer, handler cache.ResourceEventHandler, logger *klog.Logger) *filter {
	f := &filter{
		informer:  i,
		handler:   handler,
		mu:        newMutex(),
		logger:    logger,
		changes:   changeQueue{posted: make(chan struct{}, 1)},
		removed:   make(chan struct{}),
		finished:  make(chan struct{}),
		replayed:  make(chan struct{}),
		shown:     map[id]uint64{},
		ahead:     map[id]version{},
		delivered: map[uint64]uint64{},
		observed:  i.deletions.number(),
		late:      map[id]bool{},
	}
	f.endFirst = sync.OnceFunc(func() { close(f.replayed) })
	if f.released, f.gained, f.passes = optional(handler); i.unfiltered {
		f.released = nil // the handler loses sight of no object
	}
	if f.released != nil {
		f.names = map[id]named{}
	}
	return f
}

// String formats the handler, for client-go's errors.
func (f *filter) String() string { return fmt.Sprint(f.handler) }

func (f *filter) lock() { f.mu.lock() }

func (f *filter) unlock() {
	f.mu.unlock()
	if f.cleared.Load() {
		f.tryClear()
	}
}

// clear frees what was kept for a removed handler: now, or when the call of the handler that is
// under way returns. It may be called by that call.
func (f *filter) clear() {
	f.cleared.Store(true)
	f.tryClear()
}

func (f *filter) tryClear() {
	if !f.mu.tryLock() {
		return // the goroutine that holds the lock sees cleared when it unlocks
	}
	defer f.mu.unlock()
	if f.empty {
		return
	}
	f.empty = true
	close(f.finished)
	f.endFirst()
	f.handler, f.released, f.gained, f.passes = removedHandler{}, nil, nil, nil
	f.shown, f.names, f.ahead, f.delivered, f.late = nil, nil, nil, nil, nil
	f.changes.clear()
}

// removedHandler replaces a handler that was removed.
type removedHandler struct {
	cache.ResourceEventHandlerFuncs
}

// located is an object and its point of the hash space.
type located struct {
	obj   any
	meta  metav1.Object // nil if obj is not an object
	key   string        // in the store; only of a deleted object without a final state
	id    id            // only if identified
	point uint64
	// err is the reason why there is no point. An object without a point belongs to no
	// member: if it belonged to every member, all would work on it at once. But a handler that
	// already knows the object is notified of its update, as of an update to a key that this
	// member does not own, and of its deletion.
	err error
}

// locate sets all but the id. It does not return a located: to copy one takes a tenth of the time
// of an event that is filtered.
func (f *filter) locate(s *located, obj any) {
	s.obj = obj
	if s.meta, s.err = meta.Accessor(obj); s.err == nil {
		s.point, s.err = f.informer.pointOf(s.meta)
	}
}

// state returns what this member may do with an object.
func (f *filter) state(s *located) ring.State {
	if s.err != nil {
		return ring.NotOwned
	}
	return f.informer.ownership.State(s.point)
}

func (f *filter) activePoint(point uint64) bool {
	return f.informer.ownership.State(point) == ring.Active
}
