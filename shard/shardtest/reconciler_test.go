// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// The test of the example finds a reconciler that reconciles each object only once.
func TestRehearsal_FindsLostEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen sync.Map
		overlaps, lost := rehearse(func(cm *corev1.ConfigMap, begin func() *shardtest.Work) {
			if _, again := seen.LoadOrStore(cm.Name, true); !again {
				begin().End(true)
			}
		})
		if overlaps || lost != 20 {
			t.Errorf("overlaps %v, lost %d of 20", overlaps, lost)
		}
	})
}

// The shared objects do not lose events themselves, with a slow reconciler and a late member.
func TestRehearsal_OfASoundReconciler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		overlaps, lost := rehearse(func(_ *corev1.ConfigMap, begin func() *shardtest.Work) {
			work := begin()
			time.Sleep(500 * time.Millisecond)
			work.End(true)
		})
		if overlaps || lost != 0 {
			t.Errorf("overlaps %v, lost %d", overlaps, lost)
		}
	})
}
