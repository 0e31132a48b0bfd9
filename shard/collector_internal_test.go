// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/member"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// A scrape shows one moment: a member is never ready and fenced, and its partitions belong
// to the same ring as its members.
func TestMetrics_ShowOneMoment(t *testing.T) {
	s, err := New(shardtest.NewCluster().Client("a"), Config{Name: "foo", PodName: "a", Namespace: "b"})
	if err != nil {
		t.Fatal(err)
	}
	empty := *s.member.Published.View()
	full := empty
	full.Ring, _ = ring.New(s.cfg.parameters(), []string{"a"})
	full.States = make([]ring.State, len(empty.States))
	for p := range full.States {
		full.States[p] = ring.Active
	}
	full.Status.Serving = true
	later := s.member.Published.Now().Add(time.Hour)
	full.Fence = &later
	var _ claim.Time = later
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
			}
			s.member.Published.Change(func(v *member.View) { *v = full })
			s.member.Published.Change(func(v *member.View) { *v = empty })
		}
	}()
	torn := 0
	for range 200000 {
		v := s.metricValues()
		if v.Ready == v.Fenced || v.Ready != (v.Members == 1) || v.Ready != (v.Partitions[ring.Active] > 0) {
			torn++
		}
	}
	close(done)
	<-stopped
	if torn > 0 {
		t.Errorf("%d scrapes show two moments", torn)
	}
}
