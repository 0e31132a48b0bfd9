// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

const prefix = "operator-scaling.tom-ludwig.github.io/"

// written returns a Lease as a member writes it.
func written(t *testing.T, change func(*claim.Record)) *coordinationv1.Lease {
	t.Helper()
	cluster := shardtest.NewCluster()
	r := record("a")
	r.Watched, r.Newcomer, r.Longest = "77", claim.Settled, 20*time.Second
	if change != nil {
		change(&r)
	}
	if _, outcome, err := lease.NewClient(config(cluster, "a")).Create(context.Background(), r); outcome != claim.OK {
		t.Fatal(err)
	}
	return &cluster.Leases("default")[0]
}

func TestR32_EveryEditIsDetected(t *testing.T) {
	if decoded, faults, err := lease.Decode(written(t, nil), "foo"); err != nil || faults != nil || decoded.Record.Edited {
		t.Fatal(err, faults)
	}
	for key := range written(t, nil).Annotations {
		if key == prefix+"watermarks" {
			continue // they only delay (R78)
		}
		for what, change := range map[string]func(string) string{
			"removed": nil, "emptied": func(string) string { return "" }, "longer": func(v string) string { return v + "0" },
			"huge": func(string) string { return strings.Repeat("x", 200<<10) }, "not UTF-8": func(string) string { return "\xff" },
		} {
			l := written(t, nil)
			if change == nil {
				delete(l.Annotations, key)
			} else {
				l.Annotations[key] = change(l.Annotations[key])
			}
			decoded, faults, err := lease.Decode(l, "foo")
			if r := decoded.Record; err != nil || faults == nil || !r.Edited || r.Void() || !r.Claims.Everything || r.Duration != 0 || r.Tombstones != nil || r.Newcomer != "" {
				t.Errorf("%s %s: %v, %+v", key, what, err, r)
			}
		}
	}
	for what, change := range map[string]func(*coordinationv1.LeaseSpec){
		"no holder":         func(s *coordinationv1.LeaseSpec) { s.HolderIdentity = nil },
		"an empty holder":   func(s *coordinationv1.LeaseSpec) { s.HolderIdentity = new("") },
		"another holder":    func(s *coordinationv1.LeaseSpec) { s.HolderIdentity = new("b_1") },
		"a huge holder":     func(s *coordinationv1.LeaseSpec) { s.HolderIdentity = new(strings.Repeat("x", 301)) },
		"no duration":       func(s *coordinationv1.LeaseSpec) { s.LeaseDurationSeconds = nil },
		"a lower duration":  func(s *coordinationv1.LeaseSpec) { s.LeaseDurationSeconds = new(int32(1)) },
		"a higher duration": func(s *coordinationv1.LeaseSpec) { s.LeaseDurationSeconds = new(int32(1 << 30)) },
	} {
		l := written(t, nil)
		change(&l.Spec)
		if decoded, _, _ := lease.Decode(l, "foo"); !decoded.Record.Edited || decoded.Record.Void() || decoded.Record.Duration != 0 {
			t.Errorf("%s: %+v", what, decoded.Record)
		}
	}
}

// A Lease is void only if its record says that it was released or evicted, also with a right
// checksum (R45).
func TestR45_OnlyAReleaseOrAnEvictionVoids(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*claim.Record)
		void   bool
	}{
		{"released", func(r *claim.Record) {
			r.Phase, r.Claims.Set = claim.PhaseDraining, record("a").Claims.Set
			r.Claims.Set.Remove(7)
		}, true},
		{"with claims", func(r *claim.Record) { r.Phase = claim.PhaseDraining }, false},
		{"active", func(r *claim.Record) { r.Claims.Set.Remove(7) }, false},
		{"evicted", func(r *claim.Record) { r.EvictedBy = "b_1" }, true},
	} {
		l := written(t, func(r *claim.Record) { c.change(r); r.Holder = "" })
		if decoded, _, err := lease.Decode(l, "foo"); err != nil || decoded.Record.Void() != c.void || !c.void && !decoded.Record.Claims.Everything {
			t.Errorf("%s: %v, %+v", c.name, err, decoded.Record)
		}
	}
}

// The remaining time is rounded up: a reader must not count less than the writer (R29).
func TestR29_TheRemainingTimeIsRoundedUp(t *testing.T) {
	l := written(t, func(r *claim.Record) { r.Tombstones[0].Remaining = 4*time.Second + time.Nanosecond })
	decoded, _, _ := lease.Decode(l, "foo")
	if got := decoded.Record.Tombstones[0].Remaining; got != 4*time.Second+time.Millisecond {
		t.Errorf("%v", got)
	}
}

// A member recognizes each record that it has written (R40).
func TestR40_ARecordReadsAsItWasWritten(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	duration := func() time.Duration { return time.Duration(random.Int64N(int64(2 * time.Hour))) }
	claims := func() claim.Claims {
		p := ring.DefaultParameters()
		p.Partitions, p.Load = 1+random.IntN(200), 1+random.Float64()
		c := claim.Claims{Parameters: p, Set: ring.NewSet(p.Partitions), Everything: random.IntN(4) == 0}
		for n := range p.Partitions {
			if random.IntN(2) == 0 {
				c.Set.Add(n)
			}
		}
		return c
	}
	for range 200 {
		var sent claim.Record
		l := written(t, func(r *claim.Record) {
			r.Duration, r.Longest, r.Claims, r.Seq = duration(), duration(), claims(), random.Uint64()
			if random.IntN(2) == 0 {
				r.Newcomer, r.Watched, r.PodUID, r.Tombstones = "", "", "", nil
			}
			for n := range random.IntN(4) {
				r.Tombstones = append(r.Tombstones, claim.Tombstone{UID: strconv.Itoa(n), Holder: "z_1", Seq: random.Uint64(), Claims: claims(), Duration: duration(), Remaining: duration()})
			}
			sent = *r
		})
		decoded, faults, err := lease.Decode(l, "foo")
		if faults != nil || err != nil {
			t.Fatal(faults, err)
		}
		if !sent.ReadsAs(decoded.Record) {
			t.Errorf("sent %+v\nread %+v", sent, decoded.Record)
		}
	}
}
