// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"flag"
	"fmt"
	"testing"

	"github.com/tom-ludwig/operator-scaling/hack/mutation"
)

var (
	mutantsFlag     = flag.Bool("mutants", false, "run TestMutants, which takes some minutes")
	mutantSeedsFlag = flag.Int("mutant-seeds", 100, "how many seeds of TestFaults a mutant may survive in TestMutants")
)

// mutants each remove one rule of the loop, of the published state or of the transport on
// which safety or progress depends. The name describes the behavior without the rule.
var mutants = mutation.Package{
	Dir: ".", Name: "shard",
	Mutants: []mutation.Mutant{
		{Name: "has no fence", Edits: []mutation.Edit{{
			File: "snapshot.go",
			Old:  "\tdeadline := s.deadline.Load()\n\treturn now,",
			New:  "\tdeadline := s.deadline.Load()\n\tif MUTANT_ON {\n\t\treturn now, false\n\t}\n\treturn now,",
		}}},
		{Name: "is fenced when the loop notices", Edits: []mutation.Edit{{
			File: "snapshot.go",
			Old:  "deadline == nil || s.reading(now).Reached(*deadline)",
			New:  "deadline == nil || !MUTANT_ON && s.reading(now).Reached(*deadline)",
		}}},
		{Name: "cancels no context at the fence", Edits: []mutation.Edit{{
			File: "fence.go",
			Old:  "\t\tq.FenceIf(f.s.Fenced)\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tq.FenceIf(f.s.Fenced)\n\t\t}\n",
		}}},
		{Name: "cancels contexts at the fence only when the loop does", Edits: []mutation.Edit{{
			File: "fence.go",
			Old:  "\t\tdeadline := f.s.deadline.Load()\n\t\tif deadline != nil &&",
			New:  "\t\tif MUTANT_ON {\n\t\t\ttimer.Reset(time.Hour)\n\t\t\tcontinue\n\t\t}\n\t\tdeadline := f.s.deadline.Load()\n\t\tif deadline != nil &&",
		}}},
		{Name: "cancels no context for a drain", Edits: []mutation.Edit{{
			File: "loop.go",
			Old:  "\t\t\tq.Drain(a.Partitions.HasPoint)\n",
			New:  "\t\t\tif !MUTANT_ON {\n\t\t\t\tq.Drain(a.Partitions.HasPoint)\n\t\t\t}\n",
		}}},
		{Name: "releases before the work has ended", Edits: []mutation.Edit{{
			File: "inflight.go",
			Old:  "\t\t\tidle.Remove(",
			New:  "\t\t\tif MUTANT_ON {\n\t\t\t\tcontinue\n\t\t\t}\n\t\t\tidle.Remove(",
		}}},
		{Name: "does not learn of the end of work", Edits: []mutation.Edit{{
			File: "run.go",
			Old:  "\t\tq.OnDone(func() {\n",
			New:  "\t\tq.OnDone(func() {\n\t\t\tif MUTANT_ON {\n\t\t\t\treturn\n\t\t\t}\n",
		}}},
		{Name: "keeps publishing what it has released", Edits: []mutation.Edit{{
			File: "loop.go",
			Old:  "\t\t\tnext.tokens[partition] = l.machine.Token(partition)\n",
			New: `			if MUTANT_ON && old.partitions == next.partitions && l.ended == nil {
				next.states[partition] = max(next.states[partition], old.states[partition])
			}
			next.tokens[partition] = l.machine.Token(partition)
`,
		}}},
		{Name: "keeps publishing what it owned at its end", Edits: []mutation.Edit{{
			File: "loop.go",
			Old:  "\t\tended := l.machine.Ended()\n",
			New:  "\t\tended := l.machine.Ended() && !MUTANT_ON\n",
		}}},
		{Name: "notifies of changes before it publishes them", Edits: []mutation.Edit{
			{
				File: "loop.go",
				Old:  "\tl.publish(actions)\n\tfor _, action := range actions {\n\t\tl.do(action)\n\t}\n",
				New: `	if !MUTANT_ON {
		l.publish(actions)
	}
	for _, action := range actions {
		l.do(action)
	}
	if MUTANT_ON {
		time.Sleep(time.Millisecond)
		l.publish(actions)
	}
`,
			},
		}},
		{Name: "replays nothing", Edits: []mutation.Edit{{
			File: "loop.go",
			Old:  "\t\t\ti.Activated(a.Partitions)\n",
			New:  "\t\t\tif !MUTANT_ON {\n\t\t\t\ti.Activated(a.Partitions)\n\t\t\t}\n",
		}}},
		{Name: "does not notify handlers of a release", Edits: []mutation.Edit{
			{File: "loop.go", Old: "\t\t\ti.Released(a.Partitions)\n", New: "\t\t\tif !MUTANT_ON {\n\t\t\t\ti.Released(a.Partitions)\n\t\t\t}\n"},
			{File: "loop.go", Old: "\t\ti.Released(all)\n", New: "\t\tif !MUTANT_ON {\n\t\t\ti.Released(all)\n\t\t}\n"},
		}},
		{Name: "forgets deletions", Edits: []mutation.Edit{{
			File: "informer.go",
			Old:  "\ti := informer.Wrap(inner, informer.Options{\n",
			New:  "\tif MUTANT_ON {\n\t\ts.cfg.DeletionWindow = -1\n\t}\n\ti := informer.Wrap(inner, informer.Options{\n",
		}}},
		{Name: "leaves parked what is active", Edits: []mutation.Edit{{
			File: "loop.go",
			Old:  "\t\t\tq.Readmit()\n\t\t}\n\tcase claim.Drain:\n",
			New:  "\t\t\tif !MUTANT_ON {\n\t\t\t\tq.Readmit()\n\t\t\t}\n\t\t}\n\tcase claim.Drain:\n",
		}}},
		{Name: "leaves parked what the fence had stopped", Edits: []mutation.Edit{{
			File: "loop.go",
			Old:  "\t\t\t_, queues := l.s.components()\n\t\t\tfor _, q := range queues {\n\t\t\t\tq.Readmit()\n",
			New: `			_, queues := l.s.components()
			for _, q := range queues {
				if MUTANT_ON || mutantIsOn("leaves parked what is active") && !wasDown {
					continue
				}
				q.Readmit()
`,
		}, {
			File: "loop.go",
			Old:  "\t\t\tunnoticed := l.fence.lift(&deadline) && l.published != nil\n",
			New:  "\t\t\twasDown := l.published == nil || l.s.deadline.Load() == nil || MUTANT_ON\n\t\t\tunnoticed := l.fence.lift(&deadline) && l.published != nil\n",
		}}},
		{Name: "writes what it has lost", Edits: []mutation.Edit{{
			File: "transport.go",
			Old:  "if cause := workqueue.Check(r.Context()); cause != nil {",
			New:  "if cause := workqueue.Check(r.Context()); cause != nil && !MUTANT_ON {",
		}, {
			File: "transport.go",
			Old:  "\tif cause != nil {\n\t\treturn nil, refuse(r, cause)\n\t}\n\tdefer responded()",
			New:  "\tif cause != nil {\n\t\tif !MUTANT_ON {\n\t\t\treturn nil, refuse(r, cause)\n\t\t}\n\t\tresponded = func() {}\n\t}\n\tdefer responded()",
		}}},
		{Name: "aborts writes for a drain", Edits: []mutation.Edit{{
			File: "transport.go",
			Old:  "\thead := make(chan struct{})\n",
			New:  "\tif MUTANT_ON {\n\t\treturn g.next.RoundTrip(r)\n\t}\n\thead := make(chan struct{})\n",
		}}},
		{Name: "aborts writes for their callers", Edits: []mutation.Edit{{
			File: "transport.go",
			Old:  "\tdetach = func() {\n\t\tclose(left)\n",
			New: `	giveUp := func() bool { return true }
	if MUTANT_ON {
		giveUp = context.AfterFunc(request, func() {
			if !errors.Is(context.Cause(work), workqueue.ErrDraining) {
				cancel(context.Cause(request))
			}
		})
	}
	detach = func() {
		close(left)
		giveUp()
`,
		}}},
		{Name: "keeps its first token", Edits: []mutation.Edit{{
			File: "loop.go",
			Old:  "\t\tl.s.snapshot.Store(next)\n",
			New: `		if MUTANT_ON && !ended && old.partitions == next.partitions {
			for partition, token := range old.tokens {
				if token != "" {
					next.tokens[partition] = token
				}
			}
		}
		l.s.snapshot.Store(next)
`,
		}}},
		{Name: "waits forever for a response", Edits: []mutation.Edit{{
			File: "requests.go",
			Old:  "\t\t\tctx, cancel := context.WithTimeout(l.ctx, timeout)\n",
			New:  "\t\t\tif MUTANT_ON {\n\t\t\t\ttimeout = time.Hour\n\t\t\t}\n\t\t\tctx, cancel := context.WithTimeout(l.ctx, timeout)\n",
		}}},
		{Name: "does not restart a dead watch", Edits: []mutation.Edit{{
			File: "loop.go",
			Old:  "\t\tl.watch.Relist()\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tl.watch.Relist()\n\t\t}\n",
		}}},
		{Name: "joins before its informers have synced", Edits: []mutation.Edit{{
			File: "run.go",
			Old:  "if cache.WaitFor(l.ctx,",
			New:  "if MUTANT_ON || cache.WaitFor(l.ctx,",
		}}},
		{Name: "does not join again", Edits: []mutation.Edit{{
			File: "run.go",
			Old:  "\tif l.stopping {\n\t\tl.logger.Info(\"Left the ring\"",
			New:  "\tif l.stopping || MUTANT_ON {\n\t\tl.logger.Info(\"Left the ring\"",
		}}},
		{Name: "joins again while work continues", Edits: []mutation.Edit{{
			File: "run.go",
			Old:  "\tif l.s.workInFlight() > 0 {\n",
			New:  "\tif l.s.workInFlight() > 0 && !MUTANT_ON {\n",
		}}},
		{
			Name: "accepts responses to its predecessor",
			Edits: []mutation.Edit{{
				File: "loop.go",
				Old:  "e.incarnation != anyIncarnation && e.incarnation != l.incarnation {",
				New:  "e.incarnation != anyIncarnation && e.incarnation != l.incarnation && !MUTANT_ON {",
			}},
			Equivalent: "a machine ends only between two requests to its own Lease; a list counts only if it shows that Lease at its last write; " +
				"and the peer's next heartbeat corrects a wrong response to an eviction, and before that nothing becomes active without a list",
		},
		{Name: "forgets its predecessor's tombstones", Edits: []mutation.Edit{{
			File: "run.go",
			Old:  "\t\ttombstones = l.machine.Tombstones()\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\ttombstones = l.machine.Tombstones()\n\t\t}\n",
		}}},
		{Name: "forgets deletions of Leases before it was created", Edits: []mutation.Edit{{
			File: "loop.go",
			Old:  "\t\tif l.ended != nil {\n\t\t\t// The next machine",
			New:  "\t\tif l.ended != nil && !MUTANT_ON {\n\t\t\t// The next machine",
		}}},
		{
			Name: "forgets what the watch has shown",
			Edits: []mutation.Edit{{
				File: "run.go",
				Old:  "\t\tl.step(claim.LeaseObserved{Lease: known})\n",
				New:  "\t\tif !MUTANT_ON {\n\t\t\tl.step(claim.LeaseObserved{Lease: known})\n\t\t}\n",
			}},
			Equivalent: "a machine reads a list before it becomes active anywhere; and each peer's next heartbeat shows what was missed, within a renew period",
		},
		{Name: "forgets that its informers have synced", Edits: []mutation.Edit{{
			File: "run.go",
			Old:  "\tif l.synced {\n",
			New:  "\tif l.synced && !MUTANT_ON {\n",
		}}},
		{Name: "takes over the Lease of a live process", Edits: []mutation.Edit{{
			File: "internal/podlock/podlock_linux.go",
			Old:  "Held() bool { return l.listener != nil }",
			New:  "Held() bool { return l.listener != nil || l.Usable() && MUTANT_ON }",
		}}},
	},
}

// TestMutants removes one rule at a time. TestFaults must fail for each of them. Otherwise it
// would not fail if a change broke the rule by mistake.
func TestMutants(t *testing.T) {
	if !*mutantsFlag {
		t.Skip("takes some minutes: go test ./shard -run TestMutants -v -args -mutants")
	}
	binary := mutants.BuildTest(t)
	mutants.MustPass(t, binary, "-test.run=^TestFaults$", "-stop-at-first", "-seeds=20")
	for _, m := range mutants.Mutants {
		t.Run(m.Name, func(t *testing.T) {
			m.MustFail(t, binary, "-test.run=^TestFaults$", "-stop-at-first", fmt.Sprint("-seeds=", *mutantSeedsFlag))
		})
	}
}
