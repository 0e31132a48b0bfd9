// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	clientcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
)

// An API server that is busy or shuts down asks for a retry after some seconds, and
// client-go waits for that time within one call. A heartbeat that waits there uses up its
// time, and a watch that waits there cannot be restarted. The next attempt may reach
// another server.
func TestNew_RequestsForLeasesDoNotWaitWithinClientGo(t *testing.T) {
	requests := map[string]func(context.Context, clientcoordinationv1.LeaseInterface) error{
		"update": func(ctx context.Context, leases clientcoordinationv1.LeaseInterface) error {
			_, err := leases.Update(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "foo-a"}}, metav1.UpdateOptions{})
			return err
		},
		"create": func(ctx context.Context, leases clientcoordinationv1.LeaseInterface) error {
			_, err := leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "foo-a"}}, metav1.CreateOptions{})
			return err
		},
		"get": func(ctx context.Context, leases clientcoordinationv1.LeaseInterface) error {
			_, err := leases.Get(ctx, "foo-a", metav1.GetOptions{})
			return err
		},
		"list": func(ctx context.Context, leases clientcoordinationv1.LeaseInterface) error {
			_, err := leases.List(ctx, metav1.ListOptions{})
			return err
		},
		"watch": func(ctx context.Context, leases clientcoordinationv1.LeaseInterface) error {
			_, err := leases.Watch(ctx, metav1.ListOptions{})
			return err
		},
		"delete": func(ctx context.Context, leases clientcoordinationv1.LeaseInterface) error {
			return leases.Delete(ctx, "foo-a", metav1.DeleteOptions{})
		},
	}
	for name, request := range requests {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			synctest.Test(t, func(t *testing.T) {
				s := newSharder(t, kubernetes.NewForConfigOrDie(&rest.Config{
					Host: "https://example.com",
					Transport: roundTripper(func(*http.Request) (*http.Response, error) {
						return &http.Response{
							StatusCode: status,
							Header:     http.Header{"Content-Type": {"application/json"}, "Retry-After": {"5"}},
							Body:       io.NopCloser(strings.NewReader(`{}`)),
						}, nil
					}),
				}))
				start := time.Now()
				if err := request(t.Context(), s.Leases().Leases(namespace)); err == nil {
					t.Errorf("%s: no error for status %d", name, status)
				}
				if took := time.Since(start); took > 0 {
					t.Errorf("%s: status %d was returned after %v", name, status, took)
				}
			})
		}
	}
}
