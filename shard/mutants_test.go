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
			File: "internal/member/published.go",
			Old:  "\tdeadline := p.View().Fence\n\treturn now,",
			New:  "\tdeadline := p.View().Fence\n\tif MUTANT_ON {\n\t\treturn now, false\n\t}\n\treturn now,",
		}}},
		{Name: "counts a renewal that the server has stored differently", Edits: []mutation.Edit{{ // R87
			File: "internal/lease/client.go",
			Old:  "\tis, was := stored.Labels[LabelRing], sent.Labels[LabelRing]\n",
			New:  "\tif MUTANT_ON {\n\t\treturn nil\n\t}\n\tis, was := stored.Labels[LabelRing], sent.Labels[LabelRing]\n",
		}}},
		{Name: "is ready although it can own nothing", Edits: []mutation.Edit{{ // R89
			File: "internal/member/warnings.go",
			Old:  "\tif nothing {\n",
			New:  "\tif nothing && !MUTANT_ON {\n",
		}}},
		{Name: "is ready on a ring with another operator", Edits: []mutation.Edit{{ // R88
			File: "internal/member/warnings.go",
			Old:  "\tif other != nil && now.Sub",
			New:  "\tif other != nil && !MUTANT_ON && now.Sub",
		}}},
		{Name: "is not ready in a rolling update that adds a kind", Edits: []mutation.Edit{{ // R88
			File: "internal/member/warnings.go",
			Old:  "theirs != \"\" && theirs != mine && disjoint(own, r.Kinds) {",
			New:  "theirs != \"\" && (MUTANT_ON || theirs != mine && disjoint(own, r.Kinds)) {",
		}}},
		{Name: "is fenced when the loop notices", Edits: []mutation.Edit{{
			File: "internal/member/published.go",
			Old:  "deadline == nil || p.reading(now).Reached(*deadline)",
			New:  "deadline == nil || !MUTANT_ON && p.reading(now).Reached(*deadline)",
		}}},
		{Name: "cancels no context at the fence", Edits: []mutation.Edit{{
			File: "internal/member/fence.go",
			Old:  "\t\tq.FenceIf(f.published.Fenced)\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tq.FenceIf(f.published.Fenced)\n\t\t}\n",
		}}},
		{Name: "cancels contexts at the fence only when the loop does", Edits: []mutation.Edit{{
			File: "internal/member/fence.go",
			Old:  "\t\tdeadline := f.published.View().Fence\n\t\tif deadline != nil &&",
			New:  "\t\tif MUTANT_ON {\n\t\t\ttimer.Reset(time.Hour)\n\t\t\tcontinue\n\t\t}\n\t\tdeadline := f.published.View().Fence\n\t\tif deadline != nil &&",
		}}},
		{Name: "releases the Pod's lock while work is in flight", Edits: []mutation.Edit{{ // R65
			File: "internal/member/member.go",
			Old:  "\t\tif m.Components.InFlight() == 0 {\n\t\t\trelease()",
			New:  "\t\tif MUTANT_ON || m.Components.InFlight() == 0 {\n\t\t\trelease()",
		}}},
		{Name: "cancels contexts when a drain begins", Edits: []mutation.Edit{{ // R10
			File: "internal/member/dispatch.go",
			Old:  "\t\tm.Components.drain(a.Partitions)\n",
			New:  "\t\tm.Components.drain(a.Partitions)\n\t\tif MUTANT_ON {\n\t\t\tm.Components.cancel(a.Partitions)\n\t\t}\n",
		}}},
		{Name: "cancels no context for a drain", Edits: []mutation.Edit{{
			File: "internal/member/components.go",
			Old:  "\t\tq.Cancel(set.HasPoint)",
			New:  "\t\tif MUTANT_ON {\n\t\t\tcontinue\n\t\t}\n\t\tq.Cancel(set.HasPoint)",
		}}},
		{Name: "releases before the work has ended", Edits: []mutation.Edit{{
			File: "internal/member/components.go",
			Old:  "\t\t\tidle.Remove(",
			New:  "\t\t\tif MUTANT_ON {\n\t\t\t\tcontinue\n\t\t\t}\n\t\t\tidle.Remove(",
		}}},
		{Name: "does not learn of the end of work", Edits: []mutation.Edit{{
			File: "internal/member/member.go",
			Old:  "\t\tq.OnDone(func() { signal(m.idle) })\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tq.OnDone(func() { signal(m.idle) })\n\t\t}\n",
		}}},
		{Name: "ticks when nothing else wakes it", Edits: []mutation.Edit{{
			File: "internal/member/member.go",
			Old:  "\t\tif m.pause() <= 0 {\n",
			New:  "\t\tif m.pause() <= 0 && !MUTANT_ON {\n",
		}, {
			File: "internal/member/member.go",
			Old:  "\t\tcase <-timer.C: // a tick is due\n",
			New:  "\t\tcase <-timer.C:\n\t\t\tif MUTANT_ON {\n\t\t\t\tm.step(claim.Tick{})\n\t\t\t}\n",
		}}},
		{Name: "keeps publishing what it has released", Edits: []mutation.Edit{{
			File: "internal/member/dispatch.go",
			Old:  "\t\t\tnext.Tokens[partition] = m.machine.Token(partition)\n",
			New: `			if MUTANT_ON && len(old.States) == len(next.States) && m.ended == nil {
				next.States[partition] = max(next.States[partition], old.States[partition])
			}
			next.Tokens[partition] = m.machine.Token(partition)
`,
		}}},
		{Name: "keeps publishing what it owned at its end", Edits: []mutation.Edit{{
			File: "internal/member/dispatch.go",
			Old:  "\tcase moved && m.machine.Ended():\n",
			New:  "\tcase moved && m.machine.Ended() && !MUTANT_ON:\n",
		}}},
		{Name: "notifies of changes before it publishes them", Edits: []mutation.Edit{
			{
				File: "internal/member/dispatch.go",
				Old:  "\tm.publish(actions)\n\tfor _, action := range actions {\n\t\tm.do(action)\n\t}\n",
				New: `	if !MUTANT_ON {
		m.publish(actions)
	}
	for _, action := range actions {
		m.do(action)
	}
	if MUTANT_ON {
		time.Sleep(time.Millisecond)
		m.publish(actions)
	}
`,
			},
		}},
		{Name: "replays nothing", Edits: []mutation.Edit{{
			File: "internal/member/components.go",
			Old:  "\t\ti.Activated(set)\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\ti.Activated(set)\n\t\t}\n",
		}}},
		{Name: "does not notify handlers of a release", Edits: []mutation.Edit{
			{File: "internal/member/components.go", Old: "\t\ti.Released(set)\n", New: "\t\tif !MUTANT_ON {\n\t\t\ti.Released(set)\n\t\t}\n"},
		}},
		{Name: "forgets deletions", Edits: []mutation.Edit{{
			File: "informer.go",
			Old:  "\ti := informer.Wrap(inner, informer.Options{\n",
			New:  "\tif MUTANT_ON {\n\t\ts.cfg.DeletionWindow = -1\n\t}\n\ti := informer.Wrap(inner, informer.Options{\n",
		}}},
		{Name: "leaves parked what is active", Edits: []mutation.Edit{{
			File: "internal/member/components.go",
			Old:  "\tc.readmit()\n}\n\nfunc (c *Components) released",
			New:  "\tif !MUTANT_ON {\n\t\tc.readmit()\n\t}\n}\n\nfunc (c *Components) released",
		}}},
		{Name: "leaves parked what the fence had stopped", Edits: []mutation.Edit{{
			File: "internal/member/dispatch.go",
			Old:  "\t\tm.Components.readmit()\n\t\tif wasDown",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tm.Components.readmit()\n\t\t}\n\t\tif wasDown",
		}}},
		{Name: "writes what it has lost", Edits: []mutation.Edit{{
			File: "transport.go",
			Old:  "if cause := workqueue.Check(r.Context()); cause != nil {",
			New:  "if cause := workqueue.Check(r.Context()); cause != nil && !MUTANT_ON {",
		}, {
			File: "transport.go",
			Old:  "\tif cause != nil {\n\t\tcancel(cause)\n\t\treturn nil, refuse(r, cause)\n\t}\n\tdefer responded()",
			New:  "\tif cause != nil {\n\t\tif !MUTANT_ON {\n\t\t\tcancel(cause)\n\t\t\treturn nil, refuse(r, cause)\n\t\t}\n\t\tresponded, end = func() {}, func() {}\n\t}\n\tdefer responded()",
		}}},
		{Name: "refuses dry runs of deletions", Edits: []mutation.Edit{{
			File: "dry_run.go",
			Old:  "\tcase r.Method == http.MethodDelete:\n",
			New:  "\tcase r.Method == http.MethodDelete && MUTANT_ON:\n\t\treturn inQuery\n\tcase r.Method == http.MethodDelete:\n",
		}}},
		{Name: "learns from proxied servers", Edits: []mutation.Edit{{
			File: "transport.go",
			Old:  "\tif proxied.MatchString(r.URL.Path) {\n",
			New:  "\tif proxied.MatchString(r.URL.Path) && !MUTANT_ON {\n",
		}}},
		{Name: "does not learn the kinds of metadata informers", Edits: []mutation.Edit{{
			File: "internal/cachesync/writes.go",
			Old:  "\t\t\tc.learn(w)\n",
			New:  "\t\t\tif !MUTANT_ON {\n\t\t\t\tc.learn(w)\n\t\t\t}\n",
		}}},
		{Name: "aborts writes for a drain", Edits: []mutation.Edit{{
			File: "transport.go",
			Old:  "\tctx, cancel := outlive(r.Context())\n",
			New:  "\tif MUTANT_ON {\n\t\treturn g.next.RoundTrip(r)\n\t}\n\tctx, cancel := outlive(r.Context())\n",
		}}},
		{Name: "aborts writes for their callers", Edits: []mutation.Edit{{
			File: "transport.go",
			Old:  "\tdone := func() {\n\t\tend()\n",
			New: `	giveUp := func() bool { return true }
	if MUTANT_ON {
		giveUp = context.AfterFunc(r.Context(), func() {
			if !errors.Is(context.Cause(assignment.Context()), workqueue.ErrDraining) {
				cancel(context.Cause(r.Context()))
			}
		})
	}
	done := func() {
		giveUp()
		end()
`,
		}}},
		{Name: "keeps its first token", Edits: []mutation.Edit{{
			File: "internal/member/dispatch.go",
			Old:  "\t// Compare with the deadline that the loop published",
			New: `	if MUTANT_ON && moved && !m.machine.Ended() && len(old.States) == len(next.States) {
		for partition, token := range old.Tokens {
			if token != "" {
				next.Tokens[partition] = token
			}
		}
	}
	// Compare with the deadline that the loop published`,
		}}},
		{Name: "waits forever for a response", Edits: []mutation.Edit{{
			File: "internal/member/leases.go",
			Old:  "\t\t\tctx, cancel := context.WithTimeout(m.ctx, timeout)\n",
			New:  "\t\t\tif MUTANT_ON {\n\t\t\t\ttimeout = time.Hour\n\t\t\t}\n\t\t\tctx, cancel := context.WithTimeout(m.ctx, timeout)\n",
		}}},
		{Name: "waits for a request that ignores its context", Edits: []mutation.Edit{{
			File: "internal/lease/calls.go",
			Old:  "\tlate := time.NewTimer(returnWithin)\n",
			New:  "\tif MUTANT_ON {\n\t\tr := <-done\n\t\treturn r.value, r.err\n\t}\n\tlate := time.NewTimer(returnWithin)\n",
		}}},
		{Name: "does not restart a dead watch", Edits: []mutation.Edit{{
			File: "internal/member/dispatch.go",
			Old:  "\t\tm.watch.Relist()\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tm.watch.Relist()\n\t\t}\n",
		}}},
		{Name: "streams its lists", Edits: []mutation.Edit{{ // R34
			File: "internal/lease/watch.go",
			Old:  "IsWatchListSemanticsUnSupported() bool { return true }",
			New:  "IsWatchListSemanticsUnSupported() bool { return !MUTANT_ON }",
		}}},
		{Name: "watches again instead of listing", Edits: []mutation.Edit{{ // R34
			File: "internal/lease/watch.go",
			Old:  "\t\tcase restarted && verb == \"watch\":\n",
			New:  "\t\tcase restarted && verb == \"watch\" && !MUTANT_ON:\n",
		}}},
		{Name: "does not list again before a watch request succeeds", Edits: []mutation.Edit{{ // R34
			File: "internal/lease/watch.go",
			Old:  "\t\tselect {\n\t\tcase <-time.After(backoff.Step()):\n",
			New:  "\t\tif MUTANT_ON && attempt.Err() == nil {\n\t\t\ttime.Sleep(backoff.Step())\n\t\t\tcontinue\n\t\t}\n\t\tselect {\n\t\tcase <-time.After(backoff.Step()):\n",
		}}},
		{Name: "restarts a list that is in progress", Edits: []mutation.Edit{{ // R34
			File: "internal/lease/watch.go",
			Old:  "if verb != \"list\" || time.Since",
			New:  "if verb != \"list\" || MUTANT_ON || time.Since",
		}}},
		{Name: "joins before its informers have synced", Edits: []mutation.Edit{{
			File: "internal/member/member.go",
			Old:  "if !waitForSyncOrStop(m.ctx, i) {",
			New:  "if !MUTANT_ON && !waitForSyncOrStop(m.ctx, i) {",
		}}},
		{Name: "does not join again", Edits: []mutation.Edit{{
			File: "internal/member/incarnation.go",
			Old:  "\tif m.stopping {\n\t\tm.logger.Info(\"Left the ring\"",
			New:  "\tif m.stopping || MUTANT_ON {\n\t\tm.logger.Info(\"Left the ring\"",
		}}},
		{Name: "joins again while work continues", Edits: []mutation.Edit{{
			File: "internal/member/incarnation.go",
			Old:  "\tif m.Components.InFlight() > 0 {\n",
			New:  "\tif m.Components.InFlight() > 0 && !MUTANT_ON {\n",
		}}},
		{
			Name: "accepts responses to its predecessor",
			Edits: []mutation.Edit{{
				File: "internal/member/member.go",
				Old:  "e.incarnation != anyIncarnation && e.incarnation != m.incarnation {",
				New:  "e.incarnation != anyIncarnation && e.incarnation != m.incarnation && !MUTANT_ON {",
			}},
			Equivalent: "a machine ends only between two requests to its own Lease; a list counts only if it shows that Lease at its last write; " +
				"and the peer's next heartbeat corrects a wrong response to an eviction, and before that nothing becomes active without a list",
		},
		{Name: "ends for a denial after it has joined", Edits: []mutation.Edit{{
			File: "internal/member/member.go",
			Old:  "\t\tif !m.joined {\n",
			New:  "\t\tif !m.joined || MUTANT_ON {\n",
		}}},
		{Name: "forgets its predecessor's tombstones", Edits: []mutation.Edit{{
			File: "internal/member/incarnation.go",
			Old:  "\t\ttombstones, knowledge = m.machine.Tombstones(), m.machine.Knowledge()\n",
			New:  "\t\ttombstones, knowledge = m.machine.Tombstones(), m.machine.Knowledge()\n\t\tif MUTANT_ON {\n\t\t\ttombstones = nil\n\t\t}\n",
		}}},
		{Name: "stops the time of tombstones while its last work ends", Edits: []mutation.Edit{{ // R64
			File: "internal/member/incarnation.go",
			Old:  "\t\tm.machine.Step(m.Published.Now(), claim.Tick{}) // it gets",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tm.machine.Step(m.Published.Now(), claim.Tick{})\n\t\t} // it gets",
		}}},
		{Name: "forgets what its predecessor knew", Edits: []mutation.Edit{{ // R49
			File: "internal/member/incarnation.go",
			Old:  "machine.Tombstones, machine.Knowledge = predecessor, tombstones, knowledge\n",
			New:  "machine.Tombstones, machine.Knowledge = predecessor, tombstones, knowledge\n\tif MUTANT_ON {\n\t\tmachine.Knowledge = claim.Knowledge{}\n\t}\n",
		}}},
		{Name: "forgets deletions of Leases before it was created", Edits: []mutation.Edit{{
			File: "internal/member/dispatch.go",
			Old:  "\t\tm.machine.Step(m.Published.Now(), e) // it follows",
			New:  "\t\tif MUTANT_ON {\n\t\t\treturn false\n\t\t}\n\t\tm.machine.Step(m.Published.Now(), e) // it follows",
		}}},
		{
			Name: "forgets what the watch has shown",
			Edits: []mutation.Edit{{
				File: "internal/member/incarnation.go",
				Old:  "\t\tm.step(claim.LeaseObserved{Lease: known, Listed: true, Ahead: true})\n",
				New:  "\t\tif !MUTANT_ON {\n\t\t\tm.step(claim.LeaseObserved{Lease: known, Listed: true, Ahead: true})\n\t\t}\n",
			}},
			Equivalent: "a machine reads a list before it becomes active anywhere; and each peer's next heartbeat shows what was missed, within a renew period",
		},
		{Name: "forgets that its informers have synced", Edits: []mutation.Edit{{
			File: "internal/member/incarnation.go",
			Old:  "\tif m.synced {\n",
			New:  "\tif m.synced && !MUTANT_ON {\n",
		}}},
		{Name: "takes over the Lease of a live process", Edits: []mutation.Edit{{
			File: "internal/podlock/podlock_linux.go",
			Old:  "Held() bool { return l.listener != nil }",
			New:  "Held() bool { return l.listener != nil || l.Usable() && MUTANT_ON }",
		}, {
			File: "internal/podlock/podlock_linux.go",
			Old:  "\tcase errors.Is(err, syscall.EADDRINUSE):\n\t\treturn false, nil\n",
			New:  "\tcase errors.Is(err, syscall.EADDRINUSE):\n\t\treturn MUTANT_ON, nil\n",
		}}},
		{Name: "acquires what is not active", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "\tdefault:\n\t\treturn ErrNotActive\n",
			New:  "\tdefault:\n\t\tif !MUTANT_ON {\n\t\t\treturn ErrNotActive\n\t\t}\n",
		}}},
		{Name: "acquires a key of another member", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "\tcase ring.NotOwned:\n\t\treturn ErrNotOwned\n",
			New:  "\tcase ring.NotOwned:\n\t\tif !MUTANT_ON {\n\t\t\treturn ErrNotOwned\n\t\t}\n",
		}}},
		{Name: "says that a key which it may keep belongs to another member", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "\tswitch q.state(point, false) {\n",
			New:  "\tif MUTANT_ON && q.state(point, false) == ring.Pending {\n\t\treturn ErrNotOwned\n\t}\n\tswitch q.state(point, false) {\n",
		}}},
		{Name: "says that the keys of a fenced member belong to another one", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "\tif fenced {\n\t\treturn ErrNotActive\n",
			New:  "\tif fenced {\n\t\tif MUTANT_ON {\n\t\t\treturn ErrNotOwned\n\t\t}\n\t\treturn ErrNotActive\n",
		}}},
		{Name: "acquires while it is fenced", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "\tif fenced {\n",
			New:  "\tif fenced && !MUTANT_ON {\n",
		}}},
		{Name: "acquires what is in use", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "if othersFirst || q.items.entries[key] != nil {",
			New:  "if !MUTANT_ON && (othersFirst || q.items.entries[key] != nil) {",
		}}},
		{Name: "acquires out of turn", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "a.tryTake(key, point, len(a.waiting[key]) > 0)",
			New:  "a.tryTake(key, point, len(a.waiting[key]) > 0 && !MUTANT_ON)",
		}}},
		{Name: "passes no turn on", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "\t\ta.next(key) // this caller",
			New:  "\t\tif MUTANT_ON {\n\t\t\treturn\n\t\t}\n\t\ta.next(key) // this caller",
		}}},
		{Name: "ends what another caller has acquired", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "return a.queue.Context(ctx, key), sync.OnceFunc(func() { a.done(key) }), nil",
			New:  "if MUTANT_ON {\n\t\treturn a.queue.Context(ctx, key), func() { a.done(key) }, nil\n\t}\n\treturn a.queue.Context(ctx, key), sync.OnceFunc(func() { a.done(key) }), nil",
		}}},
		{Name: "does not wake who waits for a key", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "\tdefer a.queue.mu.Unlock()\n\ta.wakeAll()\n",
			New:  "\tdefer a.queue.mu.Unlock()\n\tif !MUTANT_ON {\n\t\ta.wakeAll()\n\t}\n",
		}}},
		{Name: "lets callers that it wakes acquire out of turn", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "a.tryTake(key, point, a.waiting[key][0] != turn)",
			New:  "a.tryTake(key, point, a.waiting[key][0] != turn && !MUTANT_ON)",
		}}},
		{Name: "lets Acquire hold up the drain of its caller's work", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "work.over() && work.Owner.State",
			New:  "work.over() && !MUTANT_ON && work.Owner.State",
		}}},
		{Name: "does not notify callers of Acquire of a drain", Edits: []mutation.Edit{{
			File: "../workqueue/acquire.go",
			Old:  "\ta.queue.Drain(draining)\n\ta.Readmit()\n",
			New:  "\ta.queue.Drain(draining)\n\tif !MUTANT_ON {\n\t\ta.Readmit()\n\t}\n",
		}}},
		{Name: "hands over what is acquired", Edits: []mutation.Edit{{
			File: "sharder.go",
			Old:  "\ts.member.Components.AddQueue(s.acquirer)\n",
			New:  "\tif !MUTANT_ON {\n\t\ts.member.Components.AddQueue(s.acquirer)\n\t}\n",
		}}},
		{Name: "lets callers wait for keys when it stops", Edits: []mutation.Edit{{
			File: "internal/member/member.go",
			Old:  "\t\t\tm.cfg.OnStop()\n",
			New:  "\t\t\tif !MUTANT_ON {\n\t\t\t\tm.cfg.OnStop()\n\t\t\t}\n",
		}}},
		{Name: "gives out keys after Run", Edits: []mutation.Edit{{
			File: "sharder.go",
			Old:  "\tdefer s.acquirer.Stop()\n",
			New:  "\tif !MUTANT_ON {\n\t\tdefer s.acquirer.Stop()\n\t}\n",
		}}},
		{Name: "filters what every member must see", Edits: []mutation.Edit{{
			File: "informer.go",
			Old:  "\t\tUnfiltered:     all,\n",
			New:  "\t\tUnfiltered:     all && !MUTANT_ON,\n",
		}}},
		{Name: "lets a member that owns nothing wait for its first replay", Edits: []mutation.Edit{{
			File: "internal/member/dispatch.go",
			Old:  "m.machine.Serving() && m.assignedNothing() {",
			New:  "m.machine.Serving() && !MUTANT_ON && m.assignedNothing() {",
		}}},
		{Name: "lets a member with another key wait for its first replay", Edits: []mutation.Edit{{
			File: "internal/member/dispatch.go",
			Old:  "\treturn m.machine.Incompatible() ||\n",
			New:  "\treturn m.machine.Incompatible() && !MUTANT_ON ||\n",
		}}},
	},
}

// unitTests are the tests for rules without which no fault has a wrong result.
var unitTests = map[string]string{
	"cancels contexts when a drain begins":                        "TestDrainGrace",
	"counts a renewal that the server has stored differently":     "TestR87_AWebhookThatChangesTheRecord$/^one,_while_it_is_held",
	"leaves parked what is active":                                "TestActivation_AdmitsWhatIsParked",
	"leaves parked what the fence had stopped":                    "TestFence_ResumesWhatWasParkedBeforeALateRenewal",
	"stops the time of tombstones while its last work ends":       "TestR64_TheTimeOfATombstoneRunsWhileTheLastWorkEnds",
	"streams its lists":                                           "TestL1_CrashUnderALateWatch",
	"watches again instead of listing":                            "TestR34_SlowListsAndWatches",
	"does not list again before a watch request succeeds":         "TestR34_MembersOutliveRefusedWatches",
	"restarts a list that is in progress":                         "TestR34_SlowListsAndWatches",
	"is ready although it can own nothing":                        "TestR89_ALeftoverLeaseIsReported",
	"is ready on a ring with another operator":                    "TestReport_TwoOperatorsOnOneRing",
	"is not ready in a rolling update that adds a kind":           "TestR88_ARollingUpdateAddsAKind",
	"releases the Pod's lock while work is in flight":             "TestRun_KeepsThePodsLockWhileWorkIsInFlight",
	"acquires what is not active":                                 "TestAcquire_NoTwoMembersHoldAKey",
	"acquires a key of another member":                            "TestAcquire_NoTwoMembersHoldAKey",
	"says that a key which it may keep belongs to another member": "TestAcquire_WaitsForTheHandover",
	"says that the keys of a fenced member belong to another one": "TestAcquire_EndsAtTheFenceAndResumesAfterIt",
	"acquires while it is fenced":                                 "TestAcquire_EndsAtTheFenceAndResumesAfterIt",
	"acquires what is in use":                                     "TestAcquire_CallersOfOneKeyTakeTurns",
	"acquires out of turn":                                        "TestAcquire_NoCallerJumpsTheQueue",
	"passes no turn on":                                           "TestAcquire_ACallerThatGivesUpPassesItsTurnOn",
	"ends what another caller has acquired":                       "TestAcquire_CallersOfOneKeyTakeTurns",
	"does not wake who waits for a key":                           "TestAcquire_WaitsForTheHandover",
	"lets callers that it wakes acquire out of turn":              "TestAcquire_CallersThatAreWokenTogetherKeepTheirTurns",
	"lets Acquire hold up the drain of its caller's work":         "TestAcquire_InWorkThatIsDrainedDoesNotHoldUpTheDrain",
	"does not notify callers of Acquire of a drain":               "TestAcquire_InWorkThatIsDrainedDoesNotHoldUpTheDrain",
	"refuses dry runs of deletions":                               "TestOutsideWrites_(NoDryRuns|DryRuns)",
	"learns from proxied servers":                                 "TestWrapTransport_LearnsNothingFromProxiedServers",
	"does not learn the kinds of metadata informers":              "TestG9_MetadataInformers",
	"hands over what is acquired":                                 "TestAcquire_NoTwoMembersHoldAKey",
	"lets callers wait for keys when it stops":                    "TestAcquire_ReturnsWhenTheMemberStops",
	"gives out keys after Run":                                    "TestAcquire_DrainTimeout",
	"filters what every member must see":                          "TestUnfiltered_AllMembersSeeAllObjects",
	"lets a member that owns nothing wait for its first replay":   "TestFirstReplay_OfAMemberThatOwnsNothingIsDone",
	"lets a member with another key wait for its first replay":    "TestFirstReplay_OfAMemberThatWaitsForAnotherKeyIsDone",
}

// TestMutants removes one rule at a time. TestFaults must fail for each of them. Otherwise it
// would not fail if a change broke the rule by mistake.
func TestMutants(t *testing.T) {
	mutants.MustApply(t)
	if !*mutantsFlag {
		t.Skip("takes some minutes: go test ./shard -run TestMutants -v -args -mutants")
	}
	binary := mutants.BuildTest(t)
	mutants.MustPass(t, binary, "-test.run=^TestFaults$", "-stop-at-first", "-seeds=20")
	for _, m := range mutants.Mutants {
		t.Run(m.Name, func(t *testing.T) {
			if unit := unitTests[m.Name]; unit != "" {
				m.MustFail(t, binary, "-test.run=^"+unit+"$")
				return
			}
			m.MustFail(t, binary, "-test.run=^TestFaults$", "-stop-at-first", fmt.Sprint("-seeds=", *mutantSeedsFlag))
		})
	}
}
