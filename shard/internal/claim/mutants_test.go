// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"flag"
	"fmt"
	"testing"

	"github.com/tom-ludwig/operator-scaling/hack/mutation"
)

var (
	mutantsFlag     = flag.Bool("mutants", false, "run TestMutants, which takes some minutes")
	mutantSeedsFlag = flag.Int("mutant-seeds", 1000, "how many seeds a mutant may survive in TestMutants")
)

// mutants are the rules of the protocol on which safety or progress depends, each removed
// from the state machine. The name describes the faulty behavior.
var mutants = mutation.Package{
	Dir:   ".",
	Name:  "claim",
	Tests: "claimsim",
	Extra: `
const never = 1<<63 - 1

// takeBack puts partitions that were given up into another state.
func (m *Machine) takeBack(set mutantring.Set, to partitionState) {
	taken := mutantring.NewSet(len(m.parts.state))
	for p := range set.All() {
		if p < len(m.parts.state) && m.parts.state[p] == free {
			m.parts.state[p] = to
			taken.Add(p)
		}
	}
	if !taken.Empty() {
		m.do(Claimed{Partitions: taken})
	}
}
`,
	Imports: []string{`mutantring "github.com/tom-ludwig/operator-scaling/shard/ring"`},
	Mutants: []mutation.Mutant{
		{Name: "believes the void record of another Lease", Edits: []mutation.Edit{{
			File: "peers.go",
			Old:  "case is.Void() && (!is.Copied || was.Void()):",
			New:  "case is.Void() && (!is.Copied || was.Void() || MUTANT_ON):",
		}}},
		{Name: "forgets what it knew of peers when it restarts in place", Edits: []mutation.Edit{{
			File: "peers.go",
			Old:  "m.knowledge.peers[l.UID]; known {",
			New:  "m.knowledge.peers[l.UID]; known && !MUTANT_ON {",
		}}},
		{Name: "does not restart the timer for a second edit in a gap", Edits: []mutation.Edit{{
			File: "peers.go",
			Old:  "|| listed && hidden(p.lease, l))",
			New:  "|| listed && !MUTANT_ON && hidden(p.lease, l))",
		}}},
		{Name: "activates without a list", Edits: []mutation.Edit{{
			File: "partitions.go",
			Old:  `may && m.list.clear.Has(p) &&`,
			New:  `may && (m.list.clear.Has(p) || MUTANT_ON) &&`,
		}}},
		{Name: "lists from the local state of the watch", Edits: []mutation.Edit{{
			File: "partitions.go",
			Old:  "\tt.claimable = ring.NewSet(len(t.state))\n",
			New: `	t.claimable = ring.NewSet(len(t.state))
	if MUTANT_ON {
		m.list.clear = ring.FullSet(len(t.state))
		for p := range t.blocked.All() {
			m.list.clear.Remove(p)
		}
	}
`,
		}}},
		{Name: "evicts without a condition", Edits: []mutation.Edit{{
			File: "evict.go",
			Old:  "\t\tm.do(m.eviction(m.startRemoval(p), p.lease))\n",
			New:  "\t\tevict := m.eviction(m.startRemoval(p), p.lease)\n\t\tif MUTANT_ON {\n\t\t\tevict.Version = \"\"\n\t\t}\n\t\tm.do(evict)\n",
		}}},
		{Name: "evicts all silent peers at once", Edits: []mutation.Edit{{
			File: "evict.go",
			Old:  "bool { return len(m.removals) < maxRemovals }",
			New:  "bool { return len(m.removals) < maxRemovals || MUTANT_ON }",
		}}},
		{Name: "makes no tombstone for another process of its name", Edits: []mutation.Edit{{
			File: "acquire.go",
			Old:  "if known.void || last.Record.Holder == m.cfg.Holder ||",
			New:  "if known.void || MUTANT_ON || last.Record.Holder == m.cfg.Holder ||",
		}}},
		{Name: "counts the fence from the response", Edits: []mutation.Edit{{
			File: "own.go",
			Old:  "\tm.own.fence = r.sent.Add(m.cfg.RenewDeadline)\n",
			New:  "\tm.own.fence = r.sent.Add(m.cfg.RenewDeadline)\n\tif MUTANT_ON {\n\t\tm.own.fence = m.now.Add(m.cfg.RenewDeadline)\n\t}\n",
		}}},
		{Name: "counts the fence on the monotonic clock only", Edits: []mutation.Edit{{
			File: "own.go",
			Old:  "\tswitch {\n\tcase m.now.Reached(m.own.fence):\n",
			New:  "\tif MUTANT_ON {\n\t\tm.own.fence.Wall = never\n\t}\n\tswitch {\n\tcase m.now.Reached(m.own.fence):\n",
		}}},
		{Name: "has no fence", Edits: []mutation.Edit{{
			File: "own.go",
			Old:  "\tif claimed := m.parts.confirm(",
			New:  "\tif MUTANT_ON {\n\t\tm.own.fence = Time{never, never}\n\t}\n\tif claimed := m.parts.confirm(",
		}}},
		{Name: "treats a release without a response as not done", Edits: []mutation.Edit{{
			File: "own.go",
			Old:  "\t\tm.failed(e.Outcome)\n\t\treturn\n\t}\n\tif r.kind == opCreate {\n",
			New:  "\t\tm.failed(e.Outcome)\n\t\tif MUTANT_ON {\n\t\t\tm.takeBack(r.released, drained)\n\t\t}\n\t\treturn\n\t}\n\tif r.kind == opCreate {\n",
		}}},
		{Name: "concludes a claim from a read", Edits: []mutation.Edit{{
			File: "own.go",
			Old:  "\t\tm.own.failures = max(m.own.failures, 1)\n\t\tif m.own.fenced {\n",
			New:  "\t\tm.own.failures = max(m.own.failures, 1)\n\t\tif MUTANT_ON {\n\t\t\tm.own.failures = 0\n\t\t\tm.takeBack(l.Record.Claims.Set, claimed)\n\t\t}\n\t\tif m.own.fenced {\n",
		}}},
		{Name: "keeps a claim that it does not want", Edits: []mutation.Edit{
			{
				File: "partitions.go",
				Old:  "if (s == drained || s == claimed) && !t.want.Has(p) {",
				New:  "if (s == drained || s == claimed && !MUTANT_ON) && !t.want.Has(p) {",
			},
			{
				File: "partitions.go",
				Old:  "\t\t\tif !want {\n\t\t\t\twaiting = true\n",
				New:  "\t\t\tif !want {\n\t\t\t\twaiting = !MUTANT_ON\n",
			},
		}},
		{Name: "releases before the work has ended", Edits: []mutation.Edit{{
			File: "partitions.go",
			Old:  "\t\t\t\ttoDrain.Add(p)\n",
			New:  "\t\t\t\ttoDrain.Add(p)\n\t\t\t\tif MUTANT_ON {\n\t\t\t\t\tt.state[p] = drained\n\t\t\t\t}\n",
		}}},
		{Name: "evicts after a gap of its own", Edits: []mutation.Edit{{
			File: "own.go",
			Old:  "\t\tm.restartTimers()\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tm.restartTimers()\n\t\t}\n",
		}}},
		{Name: "gains and evicts with a stale watch", Edits: []mutation.Edit{{
			File: "watch_probe.go",
			Old:  "return e.returned && (len(e.waiting) == 0 || now.since(e.waiting[0].at) < limit)",
			New:  "return e.returned && (len(e.waiting) == 0 || now.since(e.waiting[0].at) < limit) || MUTANT_ON",
		}}},
		{Name: "waits for a stale watch for ever", Edits: []mutation.Edit{{
			File: "watch_probe.go",
			Old:  "func (m *Machine) guardWatch() {\n",
			New:  "func (m *Machine) guardWatch() {\n\tif MUTANT_ON {\n\t\treturn\n\t}\n",
		}}},
		{Name: "makes no tombstones", Edits: []mutation.Edit{{
			File: "tombstones.go",
			Old:  "func (m *Machine) putTombstone(t Tombstone, until Time) {\n",
			New:  "func (m *Machine) putTombstone(t Tombstone, until Time) {\n\tif MUTANT_ON {\n\t\treturn\n\t}\n",
		}}},
		{Name: "publishes no tombstones", Edits: []mutation.Edit{{
			File: "tombstones.go",
			Old:  "func (m *Machine) tombstonesToPublish() []Tombstone {\n",
			New:  "func (m *Machine) tombstonesToPublish() []Tombstone {\n\tif MUTANT_ON {\n\t\treturn nil\n\t}\n",
		}}},
		{Name: "starts cold after a process that claimed a part", Edits: []mutation.Edit{{
			File: "newcomer.go",
			Old:  "\t\tk.partial, k.cold = true, false\n",
			New:  "\t\tk.partial, k.cold = !MUTANT_ON, k.cold && MUTANT_ON\n",
		}}},
		{Name: "continues after a restore", Edits: []mutation.Edit{{
			File: "own.go",
			Old:  "case CompareVersions(l.Version, m.own.confirmedVersion) < 0:",
			New:  "case CompareVersions(l.Version, m.own.confirmedVersion) < 0 && !MUTANT_ON:",
		}}},
		{Name: "compares partitions by their numbers only", Edits: []mutation.Edit{{
			File: "record.go",
			Old:  "\treturn c.Set.OverlapsPartition(partition, p.Partitions)\n",
			New:  "\tif MUTANT_ON {\n\t\treturn c.Set.Has(partition)\n\t}\n\treturn c.Set.OverlapsPartition(partition, p.Partitions)\n",
		}}},
		{Name: "waits for no cache", Edits: []mutation.Edit{{
			File: "cache.go",
			Old:  "if m.stage != joining && m.stage != serving {",
			New:  "if m.stage != joining && m.stage != serving || MUTANT_ON {",
		}}},
		{Name: "believes an edited record", Edits: []mutation.Edit{{ // R32
			File: "peers.go",
			Old:  "\t\tis.Claims, is.Tombstones = Claims{Everything: true}, nil\n",
			New:  "\t\tis.Claims, is.Tombstones = Claims{Everything: true}, nil\n\t\tif MUTANT_ON {\n\t\t\tis.Claims = Claims{}\n\t\t}\n",
		}}},
		{Name: "works before it is settled", Edits: []mutation.Edit{{ // R49
			File: "newcomer.go",
			Old:  "\tif k.cold && len(k.awaited) == 0 ||",
			New:  "\tif MUTANT_ON || k.cold && len(k.awaited) == 0 ||",
		}}},
		{Name: "settles without the tombstones of others", Edits: []mutation.Edit{{ // R49
			File: "newcomer.go",
			Old:  "\tcase r.Newcomer == Settled:\n\t\tm.adoptTombstones(l)\n",
			New:  "\tcase r.Newcomer == Settled:\n\t\tif !MUTANT_ON {\n\t\t\tm.adoptTombstones(l)\n\t\t}\n",
		}}},
		{Name: "takes the last claims that it has seen as the final ones", Edits: []mutation.Edit{{ // R43
			File: "tombstones.go",
			Old:  "\tif !final {\n",
			New:  "\tif !final && !MUTANT_ON {\n",
		}}},
		{Name: "uses a ring that it has not requested", Edits: []mutation.Edit{{ // R73
			File: "view.go",
			Old:  "if b.op == 0 || b.op != e.Op ||",
			New:  "if !MUTANT_ON && (b.op == 0 || b.op != e.Op) ||",
		}}},
		{Name: "requests a ring for each change", Edits: []mutation.Edit{{ // R73
			File: "view.go",
			Old:  "if !m.ringDirty || b.op != 0 || !m.now.Reached(b.next) {",
			New:  "if !m.ringDirty || !MUTANT_ON && (b.op != 0 || !m.now.Reached(b.next)) {",
		}}},
		{Name: "puts any number of members on the ring", Edits: []mutation.Edit{{ // R87
			File: "view.go",
			Old:  "if len(p.members) < ring.MaxMembers {",
			New:  "if len(p.members) < ring.MaxMembers || MUTANT_ON {",
		}}},
		{Name: "leaves out the oldest members", Edits: []mutation.Edit{{ // R87
			File: "view.go",
			Old:  "\tseen := map[string]bool{}\n",
			New:  "\tseen := map[string]bool{}\n\tif MUTANT_ON {\n\t\tslices.Reverse(all)\n\t}\n",
		}}},
		{Name: "blocks what a peer claimed first", Edits: []mutation.Edit{{ // R14
			File: "partitions.go",
			Old:  "p.blocksOf != t.parameters || !p.blocksFor.equal(c) {",
			New:  "p.blocksOf != t.parameters || !p.blocksFor.equal(c) && !MUTANT_ON {",
		}}},
		{Name: "answers a newcomer that another member has answered", Edits: []mutation.Edit{{ // R49
			File: "newcomer.go",
			Old:  "if m.knowledge.settled && r.Newcomer == Settled &&",
			New:  "if !MUTANT_ON && m.knowledge.settled && r.Newcomer == Settled &&",
		}}},
		{Name: "answers newcomers without waiting for its turn", Edits: []mutation.Edit{{ // R49
			File: "newcomer.go",
			Old:  "\tif m.knowledge.settled {\n\t\tdue",
			New:  "\tif m.knowledge.settled && !MUTANT_ON {\n\t\tdue",
		}}},
		// Rules of the machine's caller, which package claimsim implements: -without.
		{Name: "works on after a pause without a check of the fence"},
		{Name: "has a renew deadline as long as the lease"},
	},
}

// unitTests are the tests of this package for rules whose removal the simulation detects too
// rarely, or never, because they bound only costs: after a restore, R32 and R52 protect as well; and a relist must miss a Lease just
// after its member has claimed more.
var unitTests = map[string]string{
	"continues after a restore":                                "TestAMachineThatWasEvictedEnds",
	"uses a ring that it has not requested":                    "TestR73_RingsAreRequestedOneAfterTheOther",
	"requests a ring for each change":                          "TestR73_RingsAreRequestedOneAfterTheOther",
	"puts any number of members on the ring":                   "TestR87_TheYoungestAreNotOnTheRing",
	"leaves out the oldest members":                            "TestR87_TheYoungestAreNotOnTheRing",
	"blocks what a peer claimed first":                         "TestR22_BlockedFollowsEachChangeOfClaims",
	"answers a newcomer that another member has answered":      "TestR49_SettledMembersTakeTurnsToAnswer",
	"answers newcomers without waiting for its turn":           "TestR49_SettledMembersTakeTurnsToAnswer",
	"starts cold after a process that claimed a part":          "TestR49_ADeadPredecessorDoesNotProveThatNoOtherMemberWorks",
	"takes the last claims that it has seen as the final ones": "TestC1_WhatTheListDoesNotShow",
	"does not restart the timer for a second edit in a gap":    "TestR44_ASecondEditInAGapMayHideAWrite",
}

// TestMutants removes one rule at a time. The simulation (package claimsim) must detect each removal, or
// it would not detect a rule that is broken by mistake.
func TestMutants(t *testing.T) {
	if !*mutantsFlag {
		t.Skip("takes some minutes: go test ./shard/internal/claim -run TestMutants -v -args -mutants")
	}
	binary := mutants.BuildTest(t)
	mutants.MustPass(t, binary, "-test.run=^TestSimulation$", "-stop-at-first", "-seeds=20")
	units := mutants
	units.Tests = ""
	unitBinary := units.BuildTest(t)
	for _, m := range mutants.Mutants {
		t.Run(m.Name, func(t *testing.T) {
			if unit := unitTests[m.Name]; unit != "" {
				m.MustFail(t, unitBinary, "-test.run=^"+unit+"$")
				return
			}
			m.MustFail(t, binary, "-test.run=^TestSimulation$", "-stop-at-first", fmt.Sprint("-seeds=", *mutantSeedsFlag), "-without="+m.Name)
		})
	}
}
