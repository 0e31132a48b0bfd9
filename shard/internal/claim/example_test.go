// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim_test

import (
	"fmt"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// A member's first second: the caller passes events to the machine and carries out the
// actions that it returns. Here the caller is also the API server, on which every request
// succeeds.
func Example() {
	m := claim.New(claim.Config{
		Member: "op-0", Lease: "lease-op-0", Holder: "op-0_5a1c",
		Parameters:    ring.Parameters{Key: "name", Partitions: 4, VirtualNodes: 20, Load: 1.25},
		LeaseDuration: 15 * time.Second, RenewDeadline: 9 * time.Second, RenewPeriod: 3 * time.Second,
		WatchLagLimit: 6 * time.Second, DrainTimeout: 30 * time.Second, Coalesce: 50 * time.Millisecond,
	})
	now := claim.Time{Mono: time.Minute, Wall: 1_700_000_000 * time.Second}
	own := claim.Lease{Name: "lease-op-0", UID: "1"}
	version := 100
	write := func(r claim.Record) claim.Lease {
		version++
		own.Version, own.Record = fmt.Sprint(version), r
		return own
	}

	events := []claim.Event{claim.WatchProgress{Version: "100", Listed: true}, claim.Synced{}}
	for end := now.Add(time.Second); len(events) > 0 || m.Next() < end.Mono; {
		if len(events) == 0 { // nothing happens until the machine needs a Tick
			now = now.Add(m.Next() - now.Mono)
			events = append(events, claim.Tick{})
		}
		actions := m.Step(now, events[0])
		events = events[1:]
		for _, action := range actions {
			switch a := action.(type) {
			case claim.GetLease:
				fmt.Println("get the member's Lease: not found")
				events = append(events, claim.GetResult{Op: a.Op, Outcome: claim.NotFound})
			case claim.CreateLease:
				fmt.Println("create it:", a.Record.Phase)
				events = append(events, claim.WriteResult{Op: a.Op, Outcome: claim.OK, Lease: write(a.Record)}, claim.LeaseObserved{Lease: own})
			case claim.WriteLease:
				fmt.Println("update it:", a.Record.Phase, "claims", a.Record.Claims.Set.Len(), "partitions")
				events = append(events, claim.WriteResult{Op: a.Op, Outcome: claim.OK, Lease: write(a.Record)}, claim.LeaseObserved{Lease: own})
			case claim.ListLeases:
				fmt.Println("list all Leases")
				events = append(events, claim.ListResult{Op: a.Op, Outcome: claim.OK, Leases: []claim.Lease{own}})
			case claim.BuildRing:
				events = append(events, a.Build())
			case claim.Unfenced:
				fmt.Println("work is possible")
			case claim.Claimed:
				fmt.Println("claimed:", a.Partitions.Len(), "partitions")
			case claim.Activated:
				fmt.Println("active:", a.Partitions.Len(), "partitions")
			}
		}
	}
	fence, _ := m.Fence()
	fmt.Println("without another renewal this member stops within", (fence.Mono - now.Mono).Round(time.Second))

	// Output:
	// get the member's Lease: not found
	// create it: joining
	// work is possible
	// list all Leases
	// update it: active claims 0 partitions
	// update it: active claims 4 partitions
	// claimed: 4 partitions
	// list all Leases
	// active: 4 partitions
	// without another renewal this member stops within 9s
}
