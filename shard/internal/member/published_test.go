// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Moved is the time of the step that changed something, and not of the one before it: queues
// count from it how long the ring has been stable.
func TestPublish_MovedIsTheTimeOfTheChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine := claim.Config{Member: "a", Holder: "a_1", Lease: "foo-a", Parameters: ring.DefaultParameters()}
		m := New(Config{Machine: machine, Metrics: metrics.New("foo", nil)})
		m.machine = claim.New(machine)
		m.publish(nil)
		time.Sleep(time.Second)
		m.publish([]claim.Action{claim.Drain{}})
		changed := time.Now()
		if v := m.Published.View(); !v.Moved.Equal(changed) {
			t.Errorf("changed at %v, and the view says %v", changed, v.Moved)
		}
		time.Sleep(time.Second)
		m.publish(nil)
		if v := m.Published.View(); !v.Moved.Equal(changed) || v.Status.At.Equal(changed) {
			t.Errorf("changed at %v, and the view says %v", changed, v.Moved)
		}
	})
}
