// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// Tests of faults that meet.

// Most members die at the same moment. The others evict them, and own everything again.
func TestMassDeath(t *testing.T) {
	soak(t)
	repeat(t, testMassDeath)
}

func testMassDeath(t *attempt) {
	const objects, members, survivors = 100, 40, 10
	w := newHarness(t)
	w.setFlag("lease-duration", shard.DefaultLeaseDuration) // 40 processes on a small machine
	w.setFlag("workers", 1)
	w.createFoos(0, objects)
	replicas := w.startMany(0, members)
	rest, victims := replicas[:survivors], replicas[survivors:]
	w.waitWorked(replicas...)
	stopChurn := w.churn(objects, 5)
	died := time.Now()
	var wait sync.WaitGroup
	for _, p := range victims {
		wait.Go(p.Kill)
	}
	wait.Wait()
	w.waitPlaced(rest...)
	took := time.Since(died)
	stopChurn()
	w.waitWorked(rest...)
	figures.add("kill -9 of 30 of 40 members: until the others own everything", round(took).String(), (shard.DefaultLeaseDuration + 2*time.Second).String())
	if took > shard.DefaultLeaseDuration+30*time.Second {
		t.Errorf("the others own everything %v after the deaths", took)
	}
	if n := w.metric(rest, "sharding_evictions_total", `outcome="done"`); n != members-survivors {
		t.Errorf("%v evictions, want %d", n, members-survivors)
	}
	w.check(true)
	w.stop(rest...)
}

// A StatefulSet's Pod is force-deleted while its node is cut off, where its process continues to
// work. Another Pod of the same name starts, and the garbage collector deletes the Lease of the
// first one: before the new process starts, or while it waits for that Lease. It must not work
// before the first process is fenced.
func TestForceDeletionOfAStatefulSetPod(t *testing.T) {
	soak(t)
	for name, waits := range map[string]bool{"collected before the new process starts": false, "collected while it waits": true} {
		t.Run(name, func(t *testing.T) { repeat(t, func(t *attempt) { testForceDeletion(t, waits) }) })
	}
}

func testForceDeletion(t *attempt, waits bool) {
	const objects = 60
	w := newHarnessOn(t, ownPlane(t, controlplane.Options{GarbageCollector: true}))
	w.plane.cp.GarbageCollector.Kill() // until the Lease is to be deleted
	w.setFlag("lease-duration", shard.DefaultLeaseDuration)
	_, host, _ := strings.Cut(w.plane.cp.APIServer.URL(), "://")
	node, err := faultproxy.StartTunnel(host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	config, kubeconfig := w.plane.cp.Admin(), filepath.Join(w.dir, "node.kubeconfig")
	config.Host = "https://" + node.Address()
	if err := controlplane.WriteKubeconfig(kubeconfig, config); err != nil {
		t.Fatal(err)
	}
	w.createFoos(0, objects)
	first := w.start("op-0", func(c *replica.Config) { c.Kubeconfig = kubeconfig })
	others := w.startMany(1, 3)
	w.waitWorked(append(others, first)...)
	stopChurn := w.churn(objects, 20)
	leases := w.kube.CoordinationV1().Leases(w.namespace)
	lease, err := leases.Get(t.Context(), w.leaseName("op-0"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}

	if err := w.kube.CoreV1().Pods(w.namespace).Delete(t.Context(), "op-0", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	var second *replica.Process
	if waits {
		second = w.start("op-0")
		w.eventually("the second reports that another process is live", func(ctx context.Context) error {
			err := second.Ready(ctx)
			if err != nil && strings.Contains(err.Error(), "another live process") {
				return nil
			}
			return errOr(err, "it is ready")
		})
	}
	node.Set(faultproxy.Cable{Stall: faultproxy.BothWays})
	cutOff := time.Now()
	if err := w.plane.cp.GarbageCollector.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.eventually("the Lease is collected", func(ctx context.Context) error {
		l, err := leases.Get(ctx, lease.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && l.UID != lease.UID {
			return nil
		}
		return errOr(err, "it exists")
	})
	// Otherwise the first process was fenced by then, and nothing was tested.
	if collected := time.Since(cutOff); collected > shard.DefaultLeaseDuration/2 {
		t.Againf("the Lease was collected after %v", collected)
	}
	if !waits {
		second = w.start("op-0")
	}
	w.waitPlaced(append(others, second)...)
	figures.add("force-deleted StatefulSet Pod on a node that is cut off: until the new Pod has its share", round(time.Since(cutOff)).String(), "")
	stopChurn()
	w.waitWorked(append(others, second)...)
	first.Kill() // the node is back, and ends what belongs to no Pod
	w.check(true)
	w.stop(append(others, second)...)
}
