// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	clientcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// ErrNoReturn is the error of a call that has not returned although its context has ended,
// and of the calls that are not made because too many others have not returned.
var ErrNoReturn = errors.New("the clientset does not return from calls whose context has ended")

const (
	// returnWithin is how long a call may take to return after its context has ended.
	returnWithin = 100 * time.Millisecond
	// maxAbandoned is how many calls may be abandoned at a time. Each has a goroutine, and
	// perhaps a connection.
	maxAbandoned = 32
)

// Calls makes calls to the API server that end with their contexts, even if the clientset
// ignores contexts, as some wrappers of http.RoundTripper do. Any goroutine may use it. The
// zero value is ready to use.
type Calls struct{ abandoned atomic.Int32 }

// Stuck reports whether so many calls have not returned that no more calls are made.
func (c *Calls) Stuck() bool { return c.abandoned.Load() >= maxAbandoned }

// Call calls f. If f has not returned shortly after the context has ended, the call is
// abandoned: Call returns [ErrNoReturn]. If f returns later without an error, its result is
// passed to discard, which may be nil.
func Call[T any](ctx context.Context, c *Calls, f func(context.Context) (T, error), discard func(T)) (T, error) {
	var none T
	if c.Stuck() {
		return none, fmt.Errorf("%w: %d of them, no more are made", ErrNoReturn, maxAbandoned)
	}
	type result struct {
		value T
		err   error
	}
	const waiting, returned, abandoned = 0, 1, 2
	var state atomic.Int32
	done := make(chan result, 1)
	go func() {
		value, err := f(ctx)
		if state.CompareAndSwap(waiting, returned) {
			done <- result{value, err}
			return
		}
		c.abandoned.Add(-1)
		if err == nil && discard != nil {
			discard(value)
		}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	late := time.NewTimer(returnWithin)
	defer late.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-late.C:
	}
	c.abandoned.Add(1)
	if state.CompareAndSwap(waiting, abandoned) {
		return none, fmt.Errorf("%w: %w", ErrNoReturn, context.Cause(ctx))
	}
	c.abandoned.Add(-1)
	r := <-done
	return r.value, r.err
}

// Bounded returns the API for Leases with all of its calls made by c. It has the methods
// that this package uses.
func (c *Calls) Bounded(leases clientcoordinationv1.LeaseInterface) clientcoordinationv1.LeaseInterface {
	return bounded{leases, c}
}

type bounded struct {
	clientcoordinationv1.LeaseInterface
	calls *Calls
}

func (b bounded) Get(ctx context.Context, name string, o metav1.GetOptions) (*coordinationv1.Lease, error) {
	return Call(ctx, b.calls, func(ctx context.Context) (*coordinationv1.Lease, error) { return b.LeaseInterface.Get(ctx, name, o) }, nil)
}

func (b bounded) Create(ctx context.Context, l *coordinationv1.Lease, o metav1.CreateOptions) (*coordinationv1.Lease, error) {
	return Call(ctx, b.calls, func(ctx context.Context) (*coordinationv1.Lease, error) { return b.LeaseInterface.Create(ctx, l, o) }, nil)
}

func (b bounded) Update(ctx context.Context, l *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return Call(ctx, b.calls, func(ctx context.Context) (*coordinationv1.Lease, error) { return b.LeaseInterface.Update(ctx, l, o) }, nil)
}

func (b bounded) Delete(ctx context.Context, name string, o metav1.DeleteOptions) error {
	_, err := Call(ctx, b.calls, func(ctx context.Context) (struct{}, error) { return struct{}{}, b.LeaseInterface.Delete(ctx, name, o) }, nil)
	return err
}

func (b bounded) List(ctx context.Context, o metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	return Call(ctx, b.calls, func(ctx context.Context) (*coordinationv1.LeaseList, error) { return b.LeaseInterface.List(ctx, o) }, nil)
}

func (b bounded) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return Call(ctx, b.calls, func(ctx context.Context) (watch.Interface, error) { return b.LeaseInterface.Watch(ctx, o) }, watch.Interface.Stop)
}
