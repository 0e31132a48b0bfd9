// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// The defaults of [Options].
const (
	DefaultDeletionWindow = 10 * time.Minute
	DefaultDeletionLimit  = 50_000
)

// Ownership determines what this member may work on.
type Ownership interface {
	// State returns what this member may do with a point of the hash space. It is called at
	// each event, from many goroutines, with a lock of the informer held: it must be cheap
	// and must not block.
	State(point uint64) ring.State
}

// Options configure [Wrap].
type Options struct {
	// Ownership determines what is delivered. Required.
	Ownership Ownership
	// Point returns an object's point of the hash space. Required. It is called from many
	// goroutines, some times for each event, with the lock of the store or of a handler
	// held. Objects for which it returns an error, or panics, belong to no member.
	Point func(obj metav1.Object) (uint64, error)
	// Unfiltered means that handlers see all events, whatever State returns, and that those of
	// objects whose partitions become active are shown to them again (guarantee I11).
	Unfiltered bool
	// FixedPoint means that the point of an object never changes while it exists, as it
	// depends only on the name, the namespace or the UID. Updates of objects that this member
	// does not own then cost one hash less.
	FixedPoint bool
	// PointOfKey returns the point of the object with a key of the store. Set it only if the
	// key determines the point. Nil means that it does not. A replay then looks only at the
	// keys to find the objects of a partition, which takes a quarter of the time. It must not panic.
	PointOfKey func(storeKey string) uint64
	// StoreKey returns the key of an object in the inner informer's store. Nil means
	// namespace/name, or the name of an object without a namespace, as in all of client-go's
	// shared informers. If it is wrong, replays find no objects; that is logged.
	StoreKey func(obj metav1.Object) string
	// DeletionWindow is how long deletions are remembered, at least, in case their partition
	// becomes active (guarantee I4). Zero means [DefaultDeletionWindow]. A negative value
	// means that deletions are not remembered.
	DeletionWindow time.Duration
	// DeletionLimit is how many deletions are remembered, at most. At the limit the oldest
	// quarter is forgotten, within the window, and that is logged. A deletion takes about
	// 400 bytes and the strings of the object's metadata. Zero means [DefaultDeletionLimit].
	DeletionLimit int
}

// Informer is a cache.SharedIndexInformer that shows its handlers only what this member may
// work on. Create it with [Wrap].
//
// Everything but the registration of handlers is the inner informer's. Its store holds all
// objects, whichever member owns them. It may be run through either of the two, or by the
// factory that the inner informer comes from. If it is run through this one, no handler is
// called after Run has returned; otherwise the one call of a replay that is under way may
// still end after that.
type Informer struct {
	cache.SharedIndexInformer
	ownership  Ownership
	point      func(metav1.Object) (uint64, error)
	unfiltered bool
	fixed      bool
	storeKey   func(metav1.Object) string
	pointOfKey func(string) uint64
	seeds      [2]maphash.Seed
	deletions  deletions

	replaying  atomic.Bool
	registered chan struct{} // capacity 1: notifies Replay that a filter was registered
	stopped    chan struct{} // closed when the inner informer has stopped, at the latest by Replay
	logged     atomic.Int64  // when an object without a point was last logged, in Unix nanoseconds
	strips     atomic.Bool   // it was logged that the transform changes keys
	misplaced  atomic.Bool   // it was logged that the store's keys are not StoreKey's
	// keysChecked: the store's keys are StoreKey's, or it was logged that they are not.
	keysChecked atomic.Bool

	// mu guards the fields below. It is held only briefly, and never while a handler or the
	// inner informer is called, so that Activated and Released do not block.
	mu        sync.Mutex
	filters   []*filter
	retired   Counts   // of filters that were removed
	activated bool     // Activated was called
	complete  complete // what a handler that is added now begins with
	posted    uint64   // the number of changes so far

	scans  atomic.Uint64 // the number of scans so far, with one that is under way
	scanMu sync.Mutex    // held during a scan; mu may be locked with it held
	last   *scan         // nil: no change waits for it; guarded by scanMu
}

// Wrap returns an informer that filters what its handlers see of inner. The inner informer
// may already be started and may have handlers of its own: those continue to see everything.
// Wrap starts nothing; see [Informer.Replay]. It panics without Ownership or Point.
func Wrap(inner cache.SharedIndexInformer, o Options) *Informer {
	if o.Ownership == nil || o.Point == nil {
		panic("informer: Wrap needs Options.Ownership and Options.Point")
	}
	if o.DeletionWindow == 0 {
		o.DeletionWindow = DefaultDeletionWindow
	}
	if o.DeletionLimit == 0 {
		o.DeletionLimit = DefaultDeletionLimit
	}
	i := &Informer{
		SharedIndexInformer: inner,
		ownership:           o.Ownership,
		point:               o.Point,
		unfiltered:          o.Unfiltered,
		fixed:               o.FixedPoint,
		storeKey:            o.StoreKey,
		pointOfKey:          o.PointOfKey,
		seeds:               [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		deletions:           deletions{window: o.DeletionWindow, limit: o.DeletionLimit},
		registered:          make(chan struct{}, 1),
		stopped:             make(chan struct{}),
	}
	return i
}

// Of returns the Informer that an informer is, also if it is hidden by a wrapper that embeds
// it, such as the typed informers of client-go. It returns nil for others.
func Of(i cache.SharedInformer) *Informer {
	if c, ok := i.GetController().(*controller); ok {
		return c.of
	}
	return nil
}

// Ownership returns the Ownership that the informer was made with.
func (i *Informer) Ownership() Ownership { return i.ownership }

// controller shows which Informer it comes from, through wrappers that embed the Informer.
type controller struct {
	cache.Controller
	of *Informer
}

// GetController returns the inner informer's controller, which does nothing useful.
func (i *Informer) GetController() cache.Controller {
	return &controller{i.SharedIndexInformer.GetController(), i}
}

// Run is RunWithContext with a channel.
func (i *Informer) Run(stopCh <-chan struct{}) { i.RunWithContext(wait.ContextForChannel(stopCh)) }

// RunWithContext runs the inner informer, and then waits for the calls of handlers that
// replays are making.
func (i *Informer) RunWithContext(ctx context.Context) {
	i.SharedIndexInformer.RunWithContext(ctx)
	if i.IsStopped() { // false if it had been started before
		i.stop()
	}
}

// stop ends the replays, and waits for the calls that are under way.
func (i *Informer) stop() {
	i.mu.Lock()
	filters := slices.Clone(i.filters)
	select {
	case <-i.stopped:
	default:
		close(i.stopped)
	}
	i.mu.Unlock()
	for _, f := range filters {
		f.lock() // the next step sees that the informer has stopped
		f.unlock()
	}
}

// SetTransform sets the transform of the inner informer. A transform that changes the key of
// an object, for instance because it removes the owner references, is logged: such an
// object would go to another member than the one that owns it. A transform that was set on the
// inner informer cannot be seen here, and is not checked.
func (i *Informer) SetTransform(transform cache.TransformFunc) error {
	if transform == nil {
		return i.SharedIndexInformer.SetTransform(nil)
	}
	return i.SharedIndexInformer.SetTransform(func(obj any) (any, error) {
		m, err := meta.Accessor(obj)
		if err != nil || i.strips.Load() {
			return transform(obj)
		}
		before, errBefore := i.pointOf(m)
		result, err := transform(obj)
		if m, isObject := result.(metav1.Object); err == nil && isObject && errBefore == nil {
			if after, errAfter := i.pointOf(m); (errAfter != nil || after != before) && i.strips.CompareAndSwap(false, true) {
				klog.Background().Error(errAfter, "The transform of an informer changes the key of objects: keep the metadata that the key is made of, such as owner references and UIDs", "object", i.keyOf(m), "type", fmt.Sprintf("%T", result))
			}
		}
		return result, err
	})
}

// AddEventHandler adds a handler that sees what this member may work on. See
// cache.SharedInformer. The returned handle belongs to this informer and not to the inner
// one.
func (i *Informer) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.register(handler, nil, i.SharedIndexInformer.AddEventHandler)
}

// AddEventHandlerWithResyncPeriod is AddEventHandler with the handler's own resync period.
// Resyncs deliver the objects that this member may work on.
func (i *Informer) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, resyncPeriod time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.register(handler, nil, func(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
		return i.SharedIndexInformer.AddEventHandlerWithResyncPeriod(h, resyncPeriod)
	})
}

// AddEventHandlerWithOptions is AddEventHandler with the handler's own resync period and
// logger.
func (i *Informer) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, options cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.register(handler, options.Logger, func(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
		return i.SharedIndexInformer.AddEventHandlerWithOptions(h, options)
	})
}

func (i *Informer) register(handler cache.ResourceEventHandler, logger *klog.Logger, add func(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error)) (cache.ResourceEventHandlerRegistration, error) {
	f := newFilter(i, handler, logger)
	// Add the filter to i.filters first, then to the inner informer. In the opposite order, a
	// partition could become active after the filter has dropped one of its objects and
	// before Activated can find the filter.
	i.mu.Lock()
	i.filters = append(i.filters, f)
	f.complete.set = i.complete.set.Clone() // the stream will show the handler everything from the beginning
	if i.activated {
		f.endFirst() // what is active now is in the initial list
	}
	i.mu.Unlock()
	inner, err := add(f.stream())
	if err != nil {
		i.forget(f)
		return nil, err
	}
	i.mu.Lock()
	f.since, f.registered = i.deletions.number(), true
	i.mu.Unlock()
	select {
	case i.registered <- struct{}{}:
	default: // a notification is already pending
	}
	return newRegistration(f, inner, handlerName(handler)), nil
}

// RemoveEventHandler removes a handler. Like the inner informer's, it is asynchronous: a call
// that is under way continues; use cache.ShutDownEventHandler to wait for it. No further call
// begins, and nothing that was kept for the handler stays in memory.
func (i *Informer) RemoveEventHandler(handle cache.ResourceEventHandlerRegistration) error {
	if r, ok := handle.(interface{ of() *registration }); ok {
		i.forget(r.of().filter)
		handle = r.of().ResourceEventHandlerRegistration
	}
	return i.SharedIndexInformer.RemoveEventHandler(handle)
}

// forget ends the replays of a filter. It ignores a filter of another informer.
func (i *Informer) forget(f *filter) {
	i.mu.Lock()
	at := slices.Index(i.filters, f)
	if at >= 0 {
		i.filters = slices.Delete(i.filters, at, at+1)
		i.retired.Add(f.counts.read())
		close(f.removed)
	}
	i.mu.Unlock()
	if at >= 0 {
		f.clear()
	}
}

// Handlers returns the number of handlers.
func (i *Informer) Handlers() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.filters)
}

// Events returns how often each outcome occurred, for all handlers together.
func (i *Informer) Events() Counts {
	i.mu.Lock()
	defer i.mu.Unlock()
	counts := i.retired
	for _, f := range i.filters {
		counts.Add(f.counts.read())
	}
	return counts
}
