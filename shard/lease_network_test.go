// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clientcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// network is what a member's requests for Leases pass through.
type network interface {
	// send carries a request to the server, and its response back: call carries it out and
	// returns its error. If send returns an error, the sender gets no other response.
	send(ctx context.Context, verb string, lease *coordinationv1.Lease, call func() error) error
	// stream is what the sender of a watch gets.
	stream(watch.Interface) watch.Interface
}

// networkClient is a clientset whose requests for Leases pass through a network. It is not
// client-go's own clientset, so a member cannot bypass its rate limiter.
type networkClient struct {
	*fake.Clientset
	network network
}

// IsWatchListSemanticsUnSupported lets client-go stream lists, as from a real API server; the
// fake clientset forbids it.
func (c *networkClient) IsWatchListSemanticsUnSupported() bool { return false }

func (c *networkClient) CoordinationV1() clientcoordinationv1.CoordinationV1Interface {
	return networkCoordination{c.Clientset.CoordinationV1(), c.network}
}

type networkCoordination struct {
	clientcoordinationv1.CoordinationV1Interface
	network network
}

func (c networkCoordination) Leases(namespace string) clientcoordinationv1.LeaseInterface {
	return networkLeases{c.CoordinationV1Interface.Leases(namespace), c.network}
}

type networkLeases struct {
	clientcoordinationv1.LeaseInterface
	network network
}

func through[T any](ctx context.Context, n network, verb string, l *coordinationv1.Lease, call func() (T, error)) (T, error) {
	var response T
	if err := n.send(ctx, verb, l, func() (err error) { response, err = call(); return err }); err != nil {
		var none T // call may still be running
		return none, err
	}
	return response, nil
}

func (l networkLeases) Get(ctx context.Context, name string, o metav1.GetOptions) (*coordinationv1.Lease, error) {
	return through(ctx, l.network, "get", nil, func() (*coordinationv1.Lease, error) { return l.LeaseInterface.Get(ctx, name, o) })
}

func (l networkLeases) Create(ctx context.Context, x *coordinationv1.Lease, o metav1.CreateOptions) (*coordinationv1.Lease, error) {
	return through(ctx, l.network, "create", x, func() (*coordinationv1.Lease, error) { return l.LeaseInterface.Create(ctx, x, o) })
}

func (l networkLeases) Update(ctx context.Context, x *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return through(ctx, l.network, "update", x, func() (*coordinationv1.Lease, error) { return l.LeaseInterface.Update(ctx, x, o) })
}

func (l networkLeases) Delete(ctx context.Context, name string, o metav1.DeleteOptions) error {
	return l.network.send(ctx, "delete", nil, func() error { return l.LeaseInterface.Delete(ctx, name, o) })
}

func (l networkLeases) List(ctx context.Context, o metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	return through(ctx, l.network, "list", nil, func() (*coordinationv1.LeaseList, error) { return l.LeaseInterface.List(ctx, o) })
}

func (l networkLeases) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	w, err := through(ctx, l.network, "watch", nil, func() (watch.Interface, error) { return l.LeaseInterface.Watch(ctx, o) })
	if err != nil {
		return nil, err
	}
	return l.network.stream(w), nil
}
