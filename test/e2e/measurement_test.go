// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// The cost of a membership change: writes in addition to heartbeats, and lists, of the
// members that stay; with few objects and with many.
func TestCostOfAMembershipChange(t *testing.T) {
	soak(t)
	repeat(t, testCostOfAMembershipChange)
}

func testCostOfAMembershipChange(t *attempt) {
	const members = 4
	w := newHarness(t)
	w.setFlag("lease-duration", shard.DefaultLeaseDuration) // avoids evictions on a slow machine
	replicas := w.startMany(0, members)
	w.waitPlaced(replicas...)
	objects := 0
	for _, more := range []int{20, 480} {
		w.createFoos(objects, objects+more)
		objects += more
		w.waitWorked(replicas...)
		for _, change := range []string{"join", "graceful stop"} {
			lists, versions := w.metric(replicas, "sharding_lease_lists_total"), w.claimWrites(replicas)
			if change == "join" {
				joined := w.start("joins")
				w.waitPlaced(append(replicas[:members:members], joined)...)
			} else {
				all := w.all()
				w.stop(all[len(all)-1])
				w.waitPlaced(replicas...)
			}
			writes := float64(w.claimWrites(replicas)-versions) / members
			lists = (w.metric(replicas, "sharding_lease_lists_total") - lists) / members
			figures.add(fmt.Sprintf("%s with %d other members, %d objects: writes, lists of each member that stays", change, members, objects),
				fmt.Sprintf("%.1f, %.1f", writes, lists), "about 2, 1")
			// On a busy machine, releases are split into more writes than on an idle one.
			if writes == 0 || writes > 10 || lists > 10 {
				t.Errorf("%s: %.1f writes and %.1f lists of each member", change, writes, lists)
			}
		}
	}
	report := w.check(true)
	if d, ok := report.Unowned[worklog.Released]; ok {
		figures.add("join and graceful stop: from the release of a partition until it is active again",
			fmt.Sprintf("p50 %v, p99 %v, max %v of %d", d.P50.Round(time.Millisecond), d.P99.Round(time.Millisecond), d.Max.Round(time.Millisecond), d.Count), "p99 250ms")
	}
	w.stop(replicas...)
}

// claimWrites counts the versions of the replicas' Leases in which something other than a
// time and a counter changed.
func (w *harness) claimWrites(replicas []*replica.Process) int {
	w.t.Helper()
	w.sync()
	writes := 0
	for _, r := range replicas {
		before := ""
		for _, v := range w.log.Lease(w.leaseName(r.Pod())) {
			now := ""
			if v.Object != nil {
				l, err := inspect.Decode(v.Object, w.ring)
				if err != nil {
					w.t.Fatal(err)
				}
				now = fmt.Sprint(l.Holder, l.Phase, l.Claims, l.Tombstones)
			}
			if now != before {
				writes++
			}
			before = now
		}
	}
	return writes
}

// table collects measurements in the order in which they were taken.
type table struct {
	mu   sync.Mutex
	rows [][3]string
}

// figures is printed at the end of the run.
var figures table

// add adds a row. target may be empty.
func (t *table) add(what, value, target string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, [3]string{what, value, target})
}

func (t *table) print() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.rows) == 0 {
		return
	}
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nFIGURE\tMEASURED\tTARGET")
	for _, r := range t.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r[0], r[1], r[2])
	}
	_ = w.Flush() // writes to a buffer do not fail
	fmt.Println(text.String())
	if path := os.Getenv("E2E_FIGURES"); path != "" {
		if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
	}
}

// quantiles formats p50, p99 and the maximum of the times.
func quantiles(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	sorted := slices.Sorted(slices.Values(times))
	at := func(percent int) time.Duration { return worklog.Quantile(sorted, percent).Round(time.Millisecond) }
	return fmt.Sprintf("p50 %v, p99 %v, max %v (%d)", at(50), at(99), at(100), len(sorted))
}
