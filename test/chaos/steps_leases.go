// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// deleteLease deletes the Lease, as soon as the server accepts the request.
func deleteLease(ctx context.Context, f *fault) error {
	return f.retry(ctx, func(ctx context.Context) error {
		return f.kube.CoordinationV1().Leases(namespace).Delete(ctx, leasePrefix+f.target.pod, metav1.DeleteOptions{})
	})
}

// annotate sets an annotation of the Lease unconditionally, as soon as the server accepts
// the request.
func annotate(annotation, value string) step {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, annotation, value)
	return func(ctx context.Context, f *fault) error {
		return f.retry(ctx, func(ctx context.Context) error {
			_, err := f.kube.CoordinationV1().Leases(namespace).Patch(ctx, leasePrefix+f.target.pod, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			return err
		})
	}
}

// editContinuously causes conflicts for two lease durations. A member answers edits with at most
// one write per renew period (R42), so that only a fast editor meets its writes.
func editContinuously(ctx context.Context, f *fault) error {
	edits := 0
	for end := time.Now().Add(f.leases(2)); time.Now().Before(end); edits++ {
		if err := steps(annotate("example.com/edit", fmt.Sprint(edits)), stay(2*time.Millisecond))(ctx, f); err != nil {
			return err
		}
	}
	f.note("%d edits", edits)
	return nil
}
