// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// leases reads the ring's Leases from the API server, including void ones, and decodes
// invalid ones as far as possible.
func (w *harness) leases(ctx context.Context) ([]inspect.Member, error) {
	list, err := w.kube.CoordinationV1().Leases(w.leasesIn).List(ctx, metav1.ListOptions{LabelSelector: inspect.Selector(w.ring)})
	if err != nil {
		return nil, err
	}
	var all []inspect.Member
	for i := range list.Items {
		if decoded, err := inspect.Decode(&list.Items[i], w.ring); err == nil {
			all = append(all, decoded)
		}
	}
	return all, nil
}

// placement is the member of each partition, according to the claims on the Leases.
type placement struct {
	partitions int
	owner      map[int]string // partition -> Pod
}

// of returns the owner of a key.
func (p placement) of(key string) string {
	namespace, name, _ := strings.Cut(key, "/")
	return p.owner[ring.PartitionOf(ring.PointOfName(namespace, name), p.partitions)]
}

// counts returns how many of the keys each member owns.
func (p placement) counts(keys []string) map[string]int {
	counts := map[string]int{}
	for _, key := range keys {
		counts[p.of(key)]++
	}
	return counts
}

// placed returns the placement, if the members are exactly the given replicas, each partition
// is claimed by one member and active there, and nothing moves.
func (w *harness) placed(ctx context.Context, replicas ...*replica.Process) (placement, error) {
	p := placement{owner: map[int]string{}}
	leases, err := w.leases(ctx)
	if err != nil {
		return p, err
	}
	claimed := map[string]int{}
	for _, r := range leases {
		if r.Void() {
			continue
		}
		if r.Phase != inspect.PhaseActive {
			return p, fmt.Errorf("member %s is %s", r.Pod, r.Phase)
		}
		if p.partitions == 0 {
			p.partitions = r.Claims.Set.Partitions()
		}
		if r.Claims.Everything || r.Claims.Set.Partitions() != p.partitions {
			return p, fmt.Errorf("member %s has claims under other ring parameters", r.Pod)
		}
		claimed[r.Pod] = r.Claims.Set.Len()
		for partition := range r.Claims.Set.All() {
			if other, taken := p.owner[partition]; taken {
				return p, fmt.Errorf("partition %d is claimed by %s and by %s", partition, other, r.Pod)
			}
			p.owner[partition] = r.Pod
		}
	}
	want := map[string]bool{}
	for _, r := range replicas {
		want[r.Pod()] = true
	}
	if got, want := slices.Sorted(maps.Keys(claimed)), slices.Sorted(maps.Keys(want)); !slices.Equal(got, want) {
		return p, fmt.Errorf("the members are %v instead of %v", got, want)
	}
	if len(p.owner) != p.partitions {
		return p, fmt.Errorf("%d of %d partitions are claimed", len(p.owner), p.partitions)
	}
	for _, r := range replicas {
		if claimed[r.Pod()] == 0 {
			// It has just joined, and no member has seen this yet.
			return p, fmt.Errorf("%s does not claim any partition", r)
		}
		if err := r.Ready(ctx); err != nil {
			return p, err
		}
		report, err := r.Report(ctx)
		if err != nil {
			return p, err
		}
		if active := report.States[ring.Active.String()]; active != claimed[r.Pod()] {
			return p, fmt.Errorf("%s claims %d partitions, %d are active", r, claimed[r.Pod()], active)
		}
		for partition, part := range report.Partitions {
			switch owner := p.owner[partition]; {
			case part.State == ring.Active.String() && owner != r.Pod():
				return p, fmt.Errorf("partition %d is active on %s and claimed by %s", partition, r, owner)
			case part.Owner != owner:
				return p, fmt.Errorf("partition %d is claimed by %s, but %s expects it to move to %s", partition, owner, r, part.Owner)
			}
		}
	}
	return p, nil
}

// waitPlaced waits until the replicas own everything and each partition has one owner.
func (w *harness) waitPlaced(replicas ...*replica.Process) placement {
	w.t.Helper()
	var p placement
	w.eventually(fmt.Sprintf("%d replicas own everything", len(replicas)), func(ctx context.Context) (err error) {
		p, err = w.placed(ctx, replicas...)
		return err
	})
	return p
}

// waitWorked waits until the replicas own everything, and each Foo was processed at its last
// version by its owner.
func (w *harness) waitWorked(replicas ...*replica.Process) placement {
	w.t.Helper()
	var p placement
	w.eventually("each Foo is processed by its owner", func(ctx context.Context) error {
		var err error
		if p, err = w.placed(ctx, replicas...); err != nil {
			return err
		}
		foos, err := w.listFoos()
		if err != nil {
			return err
		}
		behind, elsewhere := 0, 0
		for name, foo := range foos {
			if foo.Status.ObservedGeneration != foo.Generation {
				behind++
			}
			if foo.Status.Member != p.of(w.key(name)) {
				elsewhere++
			}
		}
		if behind+elsewhere > 0 {
			return fmt.Errorf("of %d Foos, %d were not processed at their last version, and %d were last processed by others", len(foos), behind, elsewhere)
		}
		return nil
	})
	return p
}

// waitQuiet waits until no replica has started work for a while.
func (w *harness) waitQuiet(quiet time.Duration) {
	w.t.Helper()
	last, since := -1, time.Now()
	w.eventually("the replicas have nothing to do", func(context.Context) error {
		if n := w.starts(nil, 0); n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) < quiet {
			return fmt.Errorf("%d reconciles, the last one %v ago", last, time.Since(since).Round(time.Millisecond))
		}
		return nil
	})
}

// starts counts the reconciles that have started since a time, of the keys for which the
// condition holds; nil for all.
func (w *harness) starts(which func(process, key string) bool, since int64) int {
	w.t.Helper()
	n := 0
	for _, h := range w.histories() {
		for _, r := range h.Records {
			if r.Event == worklog.Start && r.Time >= since && (which == nil || which(h.Name, r.Key)) {
				n++
			}
		}
	}
	return n
}

// metric sums a metric over replicas.
func (w *harness) metric(replicas []*replica.Process, name string, labels ...string) float64 {
	w.t.Helper()
	total := 0.0
	for _, r := range replicas {
		v, err := r.Metric(w.t.Context(), name, labels...)
		if err != nil {
			w.t.Fatal(err)
		}
		total += v
	}
	return total
}

// leaseName returns the name of a Pod's Lease.
func (w *harness) leaseName(pod string) string { return inspect.LeaseName(w.ring+"-", pod) }

// placedNow returns the current claims, settled or not.
func (w *harness) placedNow() placement {
	w.t.Helper()
	p := placement{owner: map[int]string{}}
	leases, err := w.leases(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, l := range leases {
		p.partitions = l.Claims.Set.Partitions()
		for partition := range l.Claims.Set.All() {
			p.owner[partition] = l.Pod
		}
	}
	return p
}

// values returns the values of a map, largest first.
func values(counts map[string]int) []int {
	sorted := slices.Sorted(maps.Values(counts))
	slices.Reverse(sorted)
	return sorted
}

// errOr returns the error, or one with the text if it is nil.
func errOr(err error, text string) error {
	if err == nil {
		return errors.New(text)
	}
	return err
}
