// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"

	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Hold stops the loop, as a pause of the process would, until the context ends.
// It returns when the loop has stopped, or when the context ends.
func (s *Sharder) Hold(ctx context.Context) {
	held := make(chan struct{})
	go s.inspect(ctx, func(*loop) {
		close(held)
		<-ctx.Done()
	})
	select {
	case <-held:
	case <-ctx.Done():
	}
}

// Leases returns the client for this member's requests for Leases. Pods and Reviews return
// the clients for its other requests.
func (s *Sharder) Leases() coordinationv1.LeasesGetter                     { return s.api.leases }
func (s *Sharder) Pods() corev1.PodsGetter                                 { return s.api.pods }
func (s *Sharder) Reviews() authorizationv1.SelfSubjectAccessReviewsGetter { return s.api.reviews }
