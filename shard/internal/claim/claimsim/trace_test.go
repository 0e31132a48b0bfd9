// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// traceEvent logs the events that a machine gets, except ticks.
func (p *process) traceEvent(e claim.Event) {
	switch e := e.(type) {
	case claim.Tick:
	case claim.LeaseObserved:
		p.w.logf("%s ← watch: %s", p.holder, describe(e.Lease))
	case claim.LeaseDeleted:
		p.w.logf("%s ← watch: deleted: %s", p.holder, describe(e.Last))
	case claim.WriteResult:
		p.w.logf("%s ← %d %v, version %s", p.holder, e.Op, e.Outcome, e.Lease.Version)
	case claim.GetResult:
		p.w.logf("%s ← %d %v: %s", p.holder, e.Op, e.Outcome, describe(e.Lease))
	case claim.ListResult:
		var leases []string
		for _, l := range e.Leases {
			leases = append(leases, describe(l))
		}
		p.w.logf("%s ← %d %v: %s", p.holder, e.Op, e.Outcome, strings.Join(leases, "; "))
	case claim.EvictResult:
		p.w.logf("%s ← %d %v: %s", p.holder, e.Op, e.Outcome, describe(e.Lease))
	case claim.DeleteResult:
		p.w.logf("%s ← %d %v", p.holder, e.Op, e.Outcome)
	case claim.Idle:
		p.w.logf("%s ← idle %v", p.holder, numbers(e.Partitions))
	default:
		p.w.logf("%s ← %T", p.holder, e)
	}
}

// traceAction logs the actions that a machine returns.
func (p *process) traceAction(a claim.Action) {
	switch a := a.(type) {
	case claim.CreateLease:
		p.w.logf("%s → %d create: %s", p.holder, a.Op, describeRecord(a.Record))
	case claim.WriteLease:
		p.w.logf("%s → %d update at %s: %s", p.holder, a.Op, a.Version, describeRecord(a.Record))
	case claim.DeleteLease:
		p.w.logf("%s → %d delete %s at %s", p.holder, a.Op, a.Name, a.Version)
	case claim.EvictLease:
		p.w.logf("%s → %d evict %s at %s", p.holder, a.Op, a.Name, a.Version)
	case claim.Claimed:
		p.w.logf("%s → claimed %v", p.holder, numbers(a.Partitions))
	case claim.Activated:
		p.w.logf("%s → activated %v", p.holder, numbers(a.Partitions))
	case claim.Drain:
		p.w.logf("%s → drain %v", p.holder, numbers(a.Partitions))
	case claim.Released:
		p.w.logf("%s → released %v", p.holder, numbers(a.Partitions))
	case claim.Ended:
		p.w.logf("%s → ended: %v", p.holder, a.Reason)
	default:
		p.w.logf("%s → %T%+v", p.holder, a, a)
	}
}

func describe(l claim.Lease) string {
	if l.Name == "" {
		return "-"
	}
	return fmt.Sprintf("%s/%s@%s %s", l.Name, l.UID, l.Version, describeRecord(l.Record))
}

func describeRecord(r claim.Record) string {
	if r.Void() {
		return fmt.Sprintf("void (evicted by %q)", r.EvictedBy)
	}
	text := fmt.Sprintf("%s %s seq %d claims %s", r.Holder, r.Phase, r.Seq, describeClaims(r.Claims))
	for _, t := range r.Tombstones {
		text += fmt.Sprintf(" †%s %s", t.Holder, describeClaims(t.Claims))
	}
	return text
}

func describeClaims(c claim.Claims) string {
	if c.Everything {
		return "everything"
	}
	return fmt.Sprintf("%v/%d", numbers(c.Set), c.Set.Partitions())
}

func numbers(s ring.Set) []int { return slices.Collect(s.All()) }
