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

var leaseFaults = []kind{
	{"Lease deleted by hand", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		if err := a.deleteLease(ctx, s); err != nil {
			return err
		}
		return a.sleep(ctx, a.options.LeaseDuration)
	}},
	{"Lease deleted by hand while a member joins", aSurgeReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		if err := i.surge.startPod(ctx, true); err != nil {
			return err
		}
		// At about the time when the new member does its first list.
		if err := a.sleep(ctx, a.between(500*time.Millisecond, 1500*time.Millisecond)); err != nil {
			return err
		}
		err := a.deleteLease(ctx, s)
		if err == nil {
			err = a.sleep(ctx, a.options.LeaseDuration)
		}
		if stopErr := i.surge.stop(); stopErr != nil {
			i.note("%v", stopErr)
		}
		return err
	}},
	{"Lease edited continuously: conflicts", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		edits := 0
		for end := time.Now().Add(a.options.LeaseDuration); time.Now().Before(end); {
			if err := a.editLease(ctx, s, "example.com/edit", fmt.Sprint(edits)); err == nil {
				edits++
			}
			if err := a.sleep(ctx, 40*time.Millisecond); err != nil {
				return err
			}
		}
		i.note("%d edits", edits)
		return nil
	}},
	{"claims on a Lease made unreadable", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		if err := a.retry(ctx, func(ctx context.Context) error {
			return a.editLease(ctx, s, "operator-scaling.tom-ludwig.github.io/claims", "garbage")
		}); err != nil {
			return err
		}
		return a.sleep(ctx, a.options.LeaseDuration)
	}},
	{"ring parameters on a Lease made unreadable", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		if err := a.retry(ctx, func(ctx context.Context) error {
			return a.editLease(ctx, s, "operator-scaling.tom-ludwig.github.io/parameters", "v9 unknown")
		}); err != nil {
			return err
		}
		return a.sleep(ctx, a.options.LeaseDuration)
	}},
}

// deleteLease deletes the replica's Lease, as soon as the server accepts the request.
func (a *environment) deleteLease(ctx context.Context, s *replicaHarness) error {
	return a.retry(ctx, func(ctx context.Context) error {
		return a.kube.CoordinationV1().Leases(namespace).Delete(ctx, leasePrefix+s.pod, metav1.DeleteOptions{})
	})
}

// retry retries while a fault of the servers lasts.
func (a *environment) retry(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.options.Outage+patience)
	defer cancel()
	return a.eventually(ctx, func(ctx context.Context) error {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return f(one)
	})
}

// editLease sets an annotation unconditionally.
func (a *environment) editLease(ctx context.Context, s *replicaHarness, annotation, value string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, annotation, value)
	_, err := a.kube.CoordinationV1().Leases(namespace).Patch(ctx, leasePrefix+s.pod, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// leaseExists returns an error if there is no Lease for the Pod.
func (a *environment) leaseExists(ctx context.Context, pod string) error {
	_, err := a.kube.CoordinationV1().Leases(namespace).Get(ctx, leasePrefix+pod, metav1.GetOptions{})
	return err
}
