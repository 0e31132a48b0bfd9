// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package chaos runs replicas of the example controller, as real processes on a real control
// plane, under constant change of their objects, and injects faults: into the processes, the
// network between each process and the API server, the servers, and the Leases. Then it checks
// the records of the replicas and the history of etcd, and draws a timeline.
//
// docs/chaos.md describes the faults, the checks V1 to V6, and how to read the report.
//
// Faults overlap: up to three at a time on different replicas, in addition to those of the
// servers. The seed determines the order, targets and times of the faults. Their effects also
// depend on the machine.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/test/audit"
	"github.com/tom-ludwig/operator-scaling/test/audit/etcdlog"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/foos"
)

// Run runs everything, writes the report and the timeline into the directory, and
// returns the findings; see [Result.Err]. An error means that the run itself failed. No
// process is left running.
func Run(ctx context.Context, o Options) (_ *Result, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("chaos: %w", err)
		}
	}()
	if err := o.validate(); err != nil {
		return nil, err
	}
	a, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer a.close()
	r, err := a.run(ctx)
	if err != nil {
		return nil, err
	}
	return r, r.write(o.Dir)
}

func (a *environment) run(ctx context.Context) (*Result, error) {
	for _, r := range a.replicas {
		if err := r.startPod(ctx); err != nil {
			return nil, err
		}
	}
	if err := eventually(ctx, patience, a.converged); err != nil {
		return nil, fmt.Errorf("before any fault: %w", err)
	}

	asking, stopAsking := context.WithCancel(a.ctx)
	defer stopAsking()
	a.wait.Go(func() { a.follow(asking) })
	stopLoad := foos.Load(a.ctx, a.options.Rate, a.change)
	began := time.Now()
	a.wait.Go(func() { a.watchMachine(asking) })
	scheduleErr := a.runSchedule(ctx, began.Add(a.options.Duration))
	faults := time.Since(began)
	a.logf("no more faults; waiting for the replicas to converge")
	if err := errors.Join(scheduleErr, a.clearAllFaults(ctx)); err != nil {
		stopLoad()
		return nil, err
	}
	_ = foos.Sleep(ctx, a.options.LeaseDuration) // the load continues for a while without faults
	r := &a.result
	r.Faulty, r.Changes = faults, stopLoad()
	if err := eventually(ctx, patience, a.converged); err != nil {
		r.breach("V3", "after the faults: %v", err)
	}
	r.Settled = time.Since(began) - faults
	stopAsking()
	a.ask(ctx, 5*time.Second)
	return a.judge(ctx)
}

// converged returns nil if the replicas' processes together own every partition, and
// each Foo was processed at its current version.
func (a *environment) converged(ctx context.Context) error {
	active := 0
	for _, r := range a.replicas {
		p, err := r.running()
		if err != nil {
			return err
		}
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if err := p.Ready(one); err != nil {
			return err
		}
		n, err := p.Metric(one, "sharding_partitions", `state="active"`)
		if err != nil {
			return err
		}
		active += int(n)
	}
	if active != a.options.Partitions {
		return fmt.Errorf("%d of %d partitions are active", active, a.options.Partitions)
	}
	versions, behind, err := a.foos.State(ctx)
	if err != nil {
		return err
	}
	if len(behind) > 0 {
		return fmt.Errorf("%d of %d Foos were not processed at their last version, for example %s", len(behind), len(versions), behind[0])
	}
	return nil
}

// change makes the n-th change of the load. As for real clients, it does not depend on whether a
// fault is active, and a failed request is not retried. Every tenth change creates a Foo, and
// deletes an old one.
func (a *environment) change(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if n%10 != 0 {
		return a.foos.Change(ctx, fmt.Sprintf("foo-%d", a.draw(a.options.Objects)), n%100)
	}
	const lifetime = 200 // changes between the creation of a Foo and its deletion
	if err := a.foos.Add(ctx, fmt.Sprintf("temporary-%d", n)); err != nil || n <= lifetime {
		return err
	}
	return a.foos.Delete(ctx, fmt.Sprintf("temporary-%d", n-lifetime), metav1.DeleteOptions{})
}

// watchMachine adds up the times in which this process did not run, or hardly.
func (a *environment) watchMachine(ctx context.Context) {
	for last := time.Now(); foos.Sleep(ctx, 100*time.Millisecond) == nil; last = time.Now() {
		if stalled := time.Since(last); stalled > time.Second {
			a.mu.Lock()
			a.result.Stalls += stalled
			a.mu.Unlock()
		}
	}
}

// follow reads the counters of all processes repeatedly until the context ends, because
// the counts of a process are lost when it is killed.
func (a *environment) follow(ctx context.Context) {
	for foos.Sleep(ctx, 300*time.Millisecond) == nil {
		a.ask(ctx, 500*time.Millisecond)
	}
}

// ask reads the counters of all processes. limit is the time for each, because it may be
// paused.
func (a *environment) ask(ctx context.Context, limit time.Duration) {
	for _, r := range a.allReplicas() {
		p, err := r.running()
		if err != nil {
			continue
		}
		one, cancel := context.WithTimeout(ctx, limit)
		metrics, err := p.Metrics(one)
		cancel()
		counts := map[string]float64{}
		for _, c := range counters {
			if err == nil {
				counts[c.what], err = metrics.Sum(c.metric, c.labels...)
			}
		}
		if err == nil {
			a.mu.Lock()
			a.seen[p] = counts
			a.mu.Unlock()
		}
	}
}

// counted adds up the counters of all processes.
func (a *environment) counted() map[string]float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	sum := map[string]float64{}
	for _, counts := range a.seen {
		for what, n := range counts {
			sum[what] += n
		}
	}
	return sum
}

// judge compares the records of the replicas with the history of etcd. No fault is active.
func (a *environment) judge(ctx context.Context) (*Result, error) {
	final, _, err := a.foos.State(ctx)
	if err != nil {
		return nil, err
	}
	syncing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := a.log.Sync(syncing); err != nil {
		return nil, err
	}
	a.mu.Lock()
	r := a.result
	a.mu.Unlock()
	var records []worklog.Process
	for tries := 0; ; tries++ {
		records = nil
		for _, p := range a.started() {
			h, err := p.History()
			if err != nil {
				return nil, err
			}
			records = append(records, h)
		}
		r.Records = worklog.Check(records, worklog.Options{End: worklog.Now(), Final: final, WritesRecorded: true})
		if audit.Count(r.Records.Findings, worklog.Loss) == 0 || tries == 100 {
			break
		}
		// A status can be visible a moment before the end of the work that wrote it is
		// recorded.
		if err := foos.Sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	r.History = a.log.Check(ringName, records)
	r.Evictions, r.LeaseWrites = evictions(a.log.Leases())
	r.Counted = a.counted()
	r.judge()
	a.mu.Lock()
	defer a.mu.Unlock()
	return &r, a.err
}

// evictions counts the Leases that were voided by a peer, and all writes.
func evictions(log []etcdlog.LeaseVersion) (evicted, writes int) {
	held := map[string]bool{}
	for _, v := range log {
		writes++
		void := v.Object == nil || v.Object.Spec.HolderIdentity == nil || *v.Object.Spec.HolderIdentity == ""
		if v.Object != nil && void && held[v.Name] && v.Object.Annotations["operator-scaling.tom-ludwig.github.io/evicted-by"] != "" {
			evicted++
		}
		held[v.Name] = !void
	}
	return evicted, writes
}
