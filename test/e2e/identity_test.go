// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// A container that is restarted in its Pod takes over the Lease of the container that died
// immediately, and not only when the Lease has expired.
func TestRestartInTheSamePod(t *testing.T) {
	soak(t)
	repeat(t, testRestartInTheSamePod)
}

func testRestartInTheSamePod(t *attempt) {
	const objects = 60
	w := newHarness(t)
	w.template.LeaseDuration = shard.DefaultLeaseDuration // long enough to distinguish immediately from later
	w.createFoos(0, objects)
	replicas := w.startMany(0, 2)
	before := w.waitWorked(replicas...)
	stopChurn := w.churn(objects, 20)
	defer stopChurn()

	killed := time.Now()
	replicas[0].Kill()
	again := w.start(replicas[0].Pod())
	after := w.waitPlaced(again, replicas[1])
	took := time.Since(killed)
	figures.add(fmt.Sprintf("kill -9 and restart in the same Pod, Lease duration %v: until it has all partitions again", shard.DefaultLeaseDuration),
		took.Round(10*time.Millisecond).String(), "at once")
	if took > shard.DefaultLeaseDuration-shard.DefaultLeaseDuration/5 {
		t.Againf("the Lease was taken over after %v: no sooner than by waiting", took)
	}
	for partition, owner := range before.owner {
		if after.owner[partition] != owner {
			t.Errorf("partition %d went from %s to %s", partition, owner, after.owner[partition])
			break
		}
	}
	if n := w.metric(replicas[1:], "sharding_evictions_total"); n != 0 {
		t.Errorf("the other member has evicted %v", n)
	}
	stopChurn()
	w.waitWorked(again, replicas[1])
	w.check(true)
	w.stop(again, replicas[1])
}

// Two live processes with one identity: two containers of one Pod, or a misconfiguration.
func TestDuplicateIdentity(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testDuplicateIdentity)
}

func testDuplicateIdentity(t *attempt) {
	duplicate(t, func(*harness) {})
}

// The same name in another Pod: the Pod was force-deleted while its process kept running, and
// was created again on another node.
func TestDuplicateNameInAnotherPod(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testDuplicateName)
}

func testDuplicateName(t *attempt) {
	duplicate(t, func(w *harness) {
		uid := w.pod("op-0")
		if err := w.kube.CoreV1().Pods(w.namespace).Delete(w.t.Context(), "op-0", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
			w.t.Fatal(err)
		}
		if w.pod("op-0") == uid {
			w.t.Fatal("the Pod was not replaced")
		}
	})
}

func duplicate(t *attempt, between func(*harness)) {
	const objects = 30
	w := newHarness(t)
	w.createFoos(0, objects)
	replicas := w.startMany(0, 2)
	w.waitWorked(replicas...)
	first, other := replicas[0], replicas[1]
	between(w)
	second := w.start(first.Pod())

	w.eventually("the second reports that another process is live", func(ctx context.Context) error {
		err := second.Ready(ctx)
		switch {
		case err == nil:
			t.Fatal("the second is ready")
		case errors.Is(err, replica.ErrNotReady) && strings.Contains(err.Error(), "another live process"):
			return nil
		}
		return err
	})
	// For longer than the Lease would last without the first process.
	stopChurn := w.churn(objects, 20)
	for end := time.Now().Add(2 * leaseDuration); time.Now().Before(end); time.Sleep(4 * poll) {
		if err := second.Ready(t.Context()); !errors.Is(err, replica.ErrNotReady) {
			t.Fatalf("the second is ready, or reports another error: %v", err)
		}
		if err := second.Healthy(t.Context()); err != nil {
			t.Fatalf("the second would be restarted, which does not help: %v", err)
		}
	}
	w.waitPlaced(first, other)
	if n := w.starts(func(process, _ string) bool { return process == second.String() }, 0); n != 0 {
		t.Errorf("the second has worked on %d objects", n)
	}
	holders := w.holders(first.Pod())
	if len(holders) != 1 {
		t.Errorf("the Lease was held by %v, want only the first process", holders)
	}

	// When the first process has exited, the second takes over.
	began := time.Now()
	w.stop(first)
	w.waitPlaced(second, other)
	figures.add("a second process of one identity, after the first has stopped: until it has joined", time.Since(began).Round(10*time.Millisecond).String(), "")
	stopChurn()
	w.waitWorked(second, other)
	w.check(true)
	w.stop(second, other)
}

// holders returns the holders of a Pod's Lease so far, in order.
func (w *harness) holders(pod string) []string {
	w.t.Helper()
	w.sync()
	var holders []string
	for _, v := range w.log.Lease(w.leaseName(pod)) {
		if v.Lease == nil {
			continue
		}
		decoded, err := inspect.Decode(v.Lease, w.ring)
		if err != nil || decoded.Void() {
			continue
		}
		if n := len(holders); n == 0 || holders[n-1] != decoded.Holder {
			holders = append(holders, decoded.Holder)
		}
	}
	return holders
}
