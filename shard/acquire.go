// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"fmt"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Acquire is for work that does not come from a [Queue]: a periodic loop, a library with a
// queue of its own, a callback other than an informer's handler. It waits until this member may work on the object with the given key
// string, which is that of [Sharder.KeyOf]. It returns the context for the work, and the function
// that ends it. Call done when the work has ended; more calls of it do nothing.
//
// The context is that of a Queue's Context: it has the values and the deadline of ctx, ends with
// [ErrDraining] or [ErrFenced] as its cause, carries the token, and makes [Sharder.WrapTransport] refuse
// requests; it does not end when ctx is cancelled. Until done, the key is work in flight: a
// handover waits for it, as Config.DrainGrace and Config.DrainTimeout say. Nothing repeats work
// that has been interrupted: acquire the key again.
//
// Callers for one key in this process take turns, in the order in which they came. A caller must
// not acquire a key that it holds. Acquired keys and the items of queues do not exclude each
// other within this member, just as two queues do not. Between members they do.
//
// Work on an item of a [Queue], or on a key, may acquire other keys, or its item's own. It must pass
// its context: while its partition is being handed over, Acquire then returns [ErrDraining] instead
// of waiting. With a context that is not derived from it, such as context.TODO(), the handover waits
// for the work, the work for Acquire, and Acquire for the handover, until Run returns
// [ErrDrainTimeout].
//
// Do not call Acquire in the handler of an informer. An informer calls a handler with one event at
// a time, and waits until it returns. Handlers are also called with updates of what is being handed
// over. While Acquire then waits for the key, maybe for ever, the handler gets no event of any
// object. Use TryAcquire, or add the object to a [Queue], which is what handlers are for.
//
// Acquire returns an error that wraps the cause of ctx if ctx ends first, [ErrDraining] as described
// above, and [ErrStopped] when Run is stopped or has returned. It may be called before Run, and waits.
// An empty key belongs to no member: the error is [ErrNotOwned].
//
// It waits for a key of another member too, maybe for ever. The workers of a queue that is not a
// [Queue] therefore use TryAcquire. They drop the item on [ErrNotOwned], and add it again with a
// backoff on other errors. Read the object from the cache when the key is acquired, not
// before: what was read earlier may be older than the last write of the former owner.
func (s *Sharder) Acquire(ctx context.Context, key string) (work context.Context, done func(), err error) {
	if key == "" {
		return nil, nil, errNoKey()
	}
	return s.acquirer.Acquire(ctx, key)
}

// TryAcquire is Acquire without the wait. It returns [ErrNotActive] if this member may not work
// on the object now, in the form of [ErrNotOwned] if it does not own it either, and [ErrInUse] if
// the key is already acquired in this process.
func (s *Sharder) TryAcquire(ctx context.Context, key string) (work context.Context, done func(), err error) {
	if key == "" {
		return nil, nil, errNoKey()
	}
	return s.acquirer.TryAcquire(ctx, key)
}

// errNoKey is the error for an object that informers and queues show to no member.
func errNoKey() error { return fmt.Errorf("acquire an object: %w: %w", ErrNotOwned, ring.ErrEmptyKey) }
