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
		{Name: "forgets between two machines who holds the Lease of its name", Edits: []mutation.Edit{{ // R64
			File: "newcomer.go",
			Old:  "\t\tif !n.void {\n\t\t\tk.leases",
			New:  "\t\tif !n.void && !MUTANT_ON {\n\t\t\tk.leases",
		}}},
		{Name: "forgets what it knew of peers when it restarts in place", Edits: []mutation.Edit{{
			File: "peers.go",
			Old:  "m.knowledge.leases[l.UID]; known {",
			New:  "m.knowledge.leases[l.UID]; known && !MUTANT_ON {",
		}}},
		{Name: "forgets the record of a Lease that is gone", Edits: []mutation.Edit{{
			File: "tombstones.go",
			Old:  "if _, blocks := m.tombstones[t.key()]; blocks {",
			New:  "if _, blocks := m.tombstones[t.key()]; blocks && !MUTANT_ON {",
		}}},
		{Name: "does not follow the watch between two machines", Edits: []mutation.Edit{{
			File: "machine.go",
			Old:  "	if m.stage == ended {\n\t\tm.followWatch(event)\n",
			New:  "	if m.stage == ended {\n\t\tif !MUTANT_ON {\n\t\t\tm.followWatch(event)\n\t\t}\n",
		}}},
		{Name: "takes a version that was on its way for an edit", Edits: []mutation.Edit{{
			File: "peers.go",
			Old:  "if p != nil && p.ahead && (!listed || !p.relisted)",
			New:  "if p != nil && p.ahead && (!listed || !p.relisted) && !MUTANT_ON",
		}}},
		{Name: "takes a restored Lease for one that was on its way", Edits: []mutation.Edit{{ // R32, R64
			File: "list.go",
			Old:  "p == nil || !p.ahead || op <= p.seenAfter",
			New:  "p == nil || MUTANT_ON || !p.ahead || op <= p.seenAfter",
		}}},
		{Name: "takes an old list for that of a restored database", Edits: []mutation.Edit{{ // R32
			File: "list.go",
			Old:  "|| op <= p.seenAfter ||",
			New:  "|| op <= p.seenAfter && !MUTANT_ON ||",
		}}},
		{Name: "waits for an edited Lease that ended between two machines", Edits: []mutation.Edit{{ // R49, R64
			File: "peers.go",
			Old:  "\tdelete(m.knowledge.hidden, last.UID)",
			New:  "\tif _, known := m.peers[last.Name]; known || !MUTANT_ON {\n\t\tdelete(m.knowledge.hidden, last.UID)\n\t}",
		}}},
		{Name: "believes a read of a Lease whose end the watch has shown", Edits: []mutation.Edit{{ // R43
			File: "acquire.go",
			Old:  "\tm.own.ends[e.Last.UID] = true\n",
			New:  "\tm.own.ends[e.Last.UID] = !MUTANT_ON\n",
		}}},
		{Name: "takes what its predecessor has handled for gone", Edits: []mutation.Edit{{
			File: "newcomer.go",
			Old:  "return p.unseen && CompareVersions(p.lease.Version, e.Version) <= 0",
			New:  "return (p.unseen || MUTANT_ON && p.ahead) && CompareVersions(p.lease.Version, e.Version) <= 0",
		}}},
		{Name: "publishes that it is alone before it has checked that", Edits: []mutation.Edit{{
			File: "partitions.go",
			Old:  "s == claimed || t.unsure.Has(p) {",
			New:  "s == claimed && !MUTANT_ON || t.unsure.Has(p) && !MUTANT_ON {",
		}}},
		{Name: "forgets a Lease that only a list has shown", Edits: []mutation.Edit{{
			File: "tombstones.go",
			Old:  "return p.unseen && !p.lease.Record.Void()",
			New:  "return p.unseen && !p.lease.Record.Void() && !MUTANT_ON",
		}}},
		{Name: "takes an earlier Lease of a name for the one that a list has shown", Edits: []mutation.Edit{{
			File: "machine.go",
			Old:  "p != nil && p.lease.UID == e.Lease.UID {",
			New:  "p != nil && (p.lease.UID == e.Lease.UID || MUTANT_ON) {",
		}}},
		{Name: "waits for the watch after a list for a refused eviction", Edits: []mutation.Edit{{ // R24
			File: "list.go",
			Old:  "if m.list.asked.Empty() {\n\t\treturn",
			New:  "if m.list.asked.Empty() && !MUTANT_ON {\n\t\treturn",
		}}},
		{Name: "remembers only what the first list has shown", Edits: []mutation.Edit{{ // R29
			File: "list.go",
			Old:  "case m.list.gone[l.UID] ||",
			New:  "case MUTANT_ON && m.known || m.list.gone[l.UID] ||",
		}}},
		{Name: "blocks for a listed Lease whose end the watch has shown", Edits: []mutation.Edit{{ // R29
			File: "list.go",
			Old:  "if l.op != 0 {",
			New:  "if l.op != 0 && !MUTANT_ON {",
		}}},
		{Name: "takes a Lease that ended before the watch started for a live one", Edits: []mutation.Edit{{
			File: "list.go",
			Old:  "case CompareVersions(m.watched, l.Version) >= 0, p",
			New:  "case CompareVersions(m.watched, l.Version) >= 0 && !MUTANT_ON, p",
		}}},
		{Name: "replaces a Lease by an earlier one of its name in a list", Edits: []mutation.Edit{{
			File: "list.go",
			Old:  "p != nil && CompareVersions(p.lease.Version, l.Version) >= 0:",
			New:  "p != nil && CompareVersions(p.lease.Version, l.Version) >= 0 && !MUTANT_ON:",
		}}},
		{Name: "takes what only a list has shown its predecessor for an edit", Edits: []mutation.Edit{{
			File: "machine.go",
			Old:  "known && e.Ahead && CompareVersions",
			New:  "known && !MUTANT_ON && e.Ahead && CompareVersions",
		}}},
		{Name: "keeps the token of a claim that it made before the fence", Edits: []mutation.Edit{{ // R52
			File: "partitions.go",
			Old:  "\t\tcase claimed, drained:\n\t\t\tt.state[p] = claimed\n",
			New:  "\t\tcase claimed, drained:\n\t\t\tif MUTANT_ON && s == claimed {\n\t\t\t\tbreak\n\t\t\t}\n\t\t\tt.state[p] = claimed\n",
		}}},
		{Name: "believes that a member has seen a later version than its own write", Edits: []mutation.Edit{{
			File: "newcomer.go",
			Old:  "CompareVersions(r.Watched, l.Version) <= 0\n",
			New:  "(CompareVersions(r.Watched, l.Version) <= 0 || MUTANT_ON)\n",
		}}},
		{Name: "judges its first list by what it has learned since", Edits: []mutation.Edit{{ // R49
			File: "machine.go",
			Old:  "\t\tif e.Listed {\n\t\t\tm.noteFirst(",
			New:  "\t\tif e.Listed && !MUTANT_ON {\n\t\t\tm.noteFirst(",
		}}},
		{Name: "forgets what its predecessor has read of the first list", Edits: []mutation.Edit{{ // R49
			File: "newcomer.go",
			Old:  "\tk.awaited, k.hidden, k.leases = cloned(k.awaited), cloned(k.hidden), cloned(k.leases)\n",
			New:  "\tk.awaited, k.hidden, k.leases = cloned(k.awaited), cloned(k.hidden), cloned(k.leases)\n\tif MUTANT_ON && k.listed == \"\" {\n\t\tclear(k.awaited)\n\t}\n",
		}}},
		{Name: "starts cold although a Lease was edited", Edits: []mutation.Edit{{ // R49
			File: "newcomer.go",
			Old:  "\t\tk.hidden[l.UID] = true\n\t\tm.noteWitness()\n",
			New:  "\t\tk.hidden[l.UID] = true\n\t\tif !MUTANT_ON {\n\t\t\tm.noteWitness()\n\t\t}\n",
		}}},
		{Name: "starts cold although a member was evicted", Edits: []mutation.Edit{{
			File: "newcomer.go",
			Old:  "r.EvictedBy != m.cfg.Holder {\n\t\t\tm.noteWitness()\n",
			New:  "r.EvictedBy != m.cfg.Holder && !MUTANT_ON {\n\t\t\tm.noteWitness()\n",
		}}},
		{Name: "starts cold although a member was released", Edits: []mutation.Edit{{ // R49
			File: "newcomer.go",
			Old:  "\tif k.listed == \"\" {\n\t\tif r.Void()",
			New:  "\tif k.listed == \"\" {\n\t\tif r.Void() && (r.EvictedBy != \"\" || !MUTANT_ON)",
		}}},
		{Name: "adopts a tombstone again that has expired", Edits: []mutation.Edit{{ // R29
			File: "tombstones.go",
			Old:  "|| m.ended[t.UID] || m.lapsed[t.key()] {",
			New:  "|| m.ended[t.UID] || m.lapsed[t.key()] && !MUTANT_ON {",
		}}},
		{Name: "writes at once when it adopts a merged tombstone again", Edits: []mutation.Edit{{ // R29
			File: "tombstones.go",
			Old:  "m.tombstonesDue || !m.lapsed[t.key()]",
			New:  "m.tombstonesDue || !m.lapsed[t.key()] || MUTANT_ON",
		}}},
		{Name: "adopts no tombstones of members that are not settled", Edits: []mutation.Edit{{
			File: "peers.go",
			Old:  "\tm.adoptTombstones(l)\n\tm.learn(l)\n",
			New:  "\tif m.knowledge.settled || !MUTANT_ON {\n\t\tm.adoptTombstones(l)\n\t}\n\tm.learn(l)\n",
		}}},
		{Name: "does not learn of longer durations from other newcomers", Edits: []mutation.Edit{{
			File: "newcomer.go",
			Old:  "\tk.wait = max(k.wait, r.Longest)\n",
			New:  "\tif k.listed == \"\" || !MUTANT_ON {\n\t\tk.wait = max(k.wait, r.Longest)\n\t}\n",
		}}},
		{Name: "does not restart the timer for a second edit in a gap", Edits: []mutation.Edit{{
			File: "peers.go",
			Old:  "|| listed && hidden(p.lease, l))",
			New:  "|| listed && !MUTANT_ON && hidden(p.lease, l))",
		}}},
		{Name: "erases what others put on its Lease", Edits: []mutation.Edit{{ // R42
			File: "own.go",
			Old:  "{ o.version, o.extra = l.Version, l.Record.Extra }",
			New:  "{\n\tif o.version, o.extra = l.Version, l.Record.Extra; MUTANT_ON {\n\t\to.extra = Extra{}\n\t}\n}",
		}}},
		{Name: "answers each foreign write at once", Edits: []mutation.Edit{{ // R42
			File: "own.go",
			Old:  "m.own.answer && m.now.Reached(m.own.answerAt) ||",
			New:  "m.own.answer && (MUTANT_ON || m.now.Reached(m.own.answerAt)) ||",
		}}},
		{Name: "leaves forged claims on its Lease until the next renewal", Edits: []mutation.Edit{{ // R42
			File: "foreign_writes.go",
			Old:  "|| !intact && !r.Edited {",
			New:  "|| !intact && !r.Edited && !MUTANT_ON {",
		}}},
		{Name: "repeats an eviction that a webhook changes without a pause", Edits: []mutation.Edit{{ // R87
			File: "peers.go",
			Old:  "if !l.Record.Edited || p.failures == 0 {",
			New:  "if MUTANT_ON || !l.Record.Edited || p.failures == 0 {",
		}}},
		{Name: "leaves before it has seen whether others leave too", Edits: []mutation.Edit{{ // R39
			File: "own.go",
			Old:  "|| m.now.since(m.leftAt) >= m.cfg.Coalesce {",
			New:  "|| MUTANT_ON || m.now.since(m.leftAt) >= m.cfg.Coalesce {",
		}}},
		{Name: "leaves although no other member knows its tombstones", Edits: []mutation.Edit{{ // R39
			File: "evict.go",
			Old:  "if m.stage != stopping || len(m.tombstones) == 0 ||",
			New:  "if MUTANT_ON || m.stage != stopping || len(m.tombstones) == 0 ||",
		}}},
		{Name: "leaves its tombstones to a member that has not seen that it stops", Edits: []mutation.Edit{{ // R39
			File: "evict.go",
			Old:  "\t\t\tCompareVersions(r.Watched, m.own.heirSince) >= 0 &&",
			New:  "\t\t\t(CompareVersions(r.Watched, m.own.heirSince) >= 0 || MUTANT_ON) &&",
		}}},
		{Name: "leaves a tombstone to a member that may not know it", Edits: []mutation.Edit{{ // R39
			File: "tombstones.go",
			Old:  "\t\tm.own.heirSince = \"\" // an heir",
			New:  "\t\tif MUTANT_ON {\n\t\t\treturn\n\t\t}\n\t\tm.own.heirSince = \"\" // an heir",
		}}},
		{Name: "takes a tombstone whose time is shorter for another one", Edits: []mutation.Edit{{ // R39
			File: "tombstones.go",
			Old:  "if !exists || t.key() == merged { // else",
			New:  "if !exists || t.key() == merged || MUTANT_ON { // else",
		}}},
		{Name: "takes a write from before a tombstone for one that had it", Edits: []mutation.Edit{{ // R39
			File: "own.go",
			Old:  "r.tombstones == m.tombstonesPut && m.own",
			New:  "(r.tombstones == m.tombstonesPut || MUTANT_ON) && m.own",
		}}},
		{Name: "forgets a member that only a quorum list has shown before its first list", Edits: []mutation.Edit{{ // R49
			File: "newcomer.go",
			Old:  "\tfor _, p := range m.peers {\n\t\tm.noteFirst(p.lease) // a quorum",
			New:  "\tfor _, p := range m.peers {\n\t\tif MUTANT_ON && p.unseen {\n\t\t\tcontinue\n\t\t}\n\t\tm.noteFirst(p.lease) // a quorum",
		}}},
		{Name: "leaves its tombstones to a member that stops, too", Edits: []mutation.Edit{{ // R39
			File: "evict.go",
			Old:  "if !r.Void() && !r.Edited && r.Phase != PhaseDraining &&",
			New:  "if !r.Void() && !r.Edited && (r.Phase != PhaseDraining || MUTANT_ON) &&",
		}}},
		{Name: "deletes its Lease and the tombstones on it", Edits: []mutation.Edit{{ // R39
			File: "own.go",
			Old:  "(len(m.tombstones) > 0 || m.knowledge.witness",
			New:  "(len(m.tombstones) > 0 && !MUTANT_ON || m.knowledge.witness",
		}}},
		{Name: "deletes what shows the next newcomer that it must wait", Edits: []mutation.Edit{{ // R39, R49
			File: "own.go",
			Old:  "|| m.knowledge.witness && !m.knowledge.settled):",
			New:  "|| m.knowledge.witness && !m.knowledge.settled && !MUTANT_ON):",
		}}},
		{Name: "deletes the tombstones on another void Lease", Edits: []mutation.Edit{{ // R39
			File: "evict.go",
			Old:  "!m.sweepFailed && !m.hasLastTombstone(p)",
			New:  "!m.sweepFailed && (!m.hasLastTombstone(p) || MUTANT_ON)",
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
			Old:  "\t\tm.failed(e.Outcome, e.RetryAfter)\n\t\treturn\n\t}\n\tif r.kind == opCreate {\n",
			New:  "\t\tm.failed(e.Outcome, e.RetryAfter)\n\t\tif MUTANT_ON {\n\t\t\tm.takeBack(r.released, drained)\n\t\t}\n\t\treturn\n\t}\n\tif r.kind == opCreate {\n",
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
		{Name: "becomes active again at the end of a drain while fenced", Edits: []mutation.Edit{{
			File: "partitions.go",
			Old:  "if want && !m.own.fenced && !t.cancelled.Has(p)",
			New:  "if want && (!m.own.fenced || MUTANT_ON) && !t.cancelled.Has(p)",
		}}},
		{Name: "starts cold although a witness has gone", Edits: []mutation.Edit{{
			File: "peers.go",
			Old:  "\t\tm.noteWitness() // it has not said what it knew\n",
			New:  "\t\tdelete(m.knowledge.awaited, last.UID)\n\t\tif !MUTANT_ON {\n\t\t\tm.noteWitness()\n\t\t}\n",
		}}},
		{Name: "starts cold after another process of its name", Edits: []mutation.Edit{{
			File: "acquire.go",
			Old:  "case l.Record.Newcomer == Alone && !l.Record.Edited && m.provenDead(l):",
			New:  "case (l.Record.Newcomer == Alone || MUTANT_ON) && !l.Record.Edited && m.provenDead(l):",
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
		{Name: "settles although an edited record may hide a longer duration", Edits: []mutation.Edit{{ // R49
			File: "newcomer.go",
			Old:  "|| len(k.hidden) == 0 &&",
			New:  "|| (MUTANT_ON || len(k.hidden) == 0) &&",
		}}},
		{Name: "takes the last claims that it has seen as the final ones", Edits: []mutation.Edit{{ // R43
			File: "tombstones.go",
			Old:  "\tif !final {\n",
			New:  "\tif !final && !MUTANT_ON {\n",
		}}},
		{Name: "concludes nothing from a read", Edits: []mutation.Edit{{ // R40
			File: "confirm.go",
			Old:  "func (m *Machine) confirmByRead(l Lease) (last bool) {\n",
			New:  "func (m *Machine) confirmByRead(l Lease) (last bool) {\n\tif MUTANT_ON {\n\t\treturn false\n\t}\n",
		}}},
		{Name: "confirms the last write whatever a read shows", Edits: []mutation.Edit{{ // R40
			File: "confirm.go",
			Old:  "\tif n < 0 {\n",
			New:  "\tif n < 0 && MUTANT_ON {\n\t\tn = len(m.own.unconfirmed) - 1\n\t}\n\tif n < 0 {\n",
		}}},
		{Name: "compares a read with what was sent by the seq only", Edits: []mutation.Edit{{ // R40
			File: "confirm.go",
			Old:  "return r.record.ReadsAs(l.Record) &&",
			New:  "return (r.record.ReadsAs(l.Record) || MUTANT_ON && r.seq == l.Record.Seq) &&",
		}}},
		{Name: "confirms the claims of an earlier write by a read", Edits: []mutation.Edit{{ // R40
			File: "confirm.go",
			Old:  "\tif r.seq < m.own.seq {\n",
			New:  "\tif r.seq < m.own.seq && !MUTANT_ON {\n",
		}}},
		{Name: "confirms a write that is too old by a read", Edits: []mutation.Edit{{ // R40
			File: "confirm.go",
			Old:  "&& !m.expired(r) })",
			New:  "&& (!m.expired(r) || MUTANT_ON) })",
		}}},
		{Name: "counts the fence from the read", Edits: []mutation.Edit{{ // R40
			File: "confirm.go",
			Old:  "\tr := m.own.unconfirmed[n]\n",
			New:  "\tr := m.own.unconfirmed[n]\n\tif MUTANT_ON {\n\t\tr.sent = m.now\n\t}\n",
		}}},
		{Name: "believes a read of a Lease that peers do not see", Edits: []mutation.Edit{{ // R40, R1
			File: "own.go",
			Old:  "case !e.Unselected && m.confirmByRead(l):",
			New:  "case (!e.Unselected || MUTANT_ON) && m.confirmByRead(l):",
		}}},
		{Name: "writes again with the seq of the write before", Edits: []mutation.Edit{{ // R40
			File: "own.go",
			Old:  "\tm.own.seq++\n\tr.seq = m.own.seq\n\tr.record =",
			New:  "\tif !MUTANT_ON || m.own.failures == 0 {\n\t\tm.own.seq++\n\t}\n\tr.seq = m.own.seq\n\tr.record =",
		}}},
		{Name: "continues with the seq that a read shows", Edits: []mutation.Edit{{ // R40
			File: "own.go",
			Old:  "\t\t// If the record was edited (R32), the next write restores it.\n",
			New:  "\t\tif MUTANT_ON && !l.Record.Edited {\n\t\t\tm.own.seq = l.Record.Seq\n\t\t}\n\t\t// If the record was edited (R32), the next write restores it.\n",
		}}},
		{Name: "handles the response to a write that a read has confirmed", Edits: []mutation.Edit{{ // R40
			File: "confirm.go",
			Old:  "\tm.own.op = nil // its response may still arrive, and is ignored\n",
			New:  "\tif !MUTANT_ON {\n\t\tm.own.op = nil\n\t}\n",
		}}},
		{Name: "gives a request up after RenewPeriod", Edits: []mutation.Edit{{ // R41
			File: "own.go",
			Old:  "func (m *Machine) timeout() time.Duration { return m.cfg.RenewDeadline / 2 }\n",
			New:  "func (m *Machine) timeout() time.Duration {\n\tif MUTANT_ON {\n\t\treturn m.cfg.RenewPeriod\n\t}\n\treturn m.cfg.RenewDeadline / 2\n}\n",
		}}},
		{Name: "sends no read alongside a write", Edits: []mutation.Edit{{ // R41
			File: "confirm.go",
			Old:  "\tif r.kind != opUpdate || r.hasRead ||",
			New:  "\tif MUTANT_ON || r.kind != opUpdate || r.hasRead ||",
		}}},
		{Name: "writes again when the read alongside a write does not show it", Edits: []mutation.Edit{{ // R7, R41
			File: "own.go",
			Old:  "\tcase alongside:\n",
			New:  "\tcase alongside && MUTANT_ON:\n\t\tm.own.op, m.own.failures = nil, max(m.own.failures, 1)\n\t\tm.own.at(l)\n\tcase alongside:\n",
		}}},
		{Name: "lists only while no write is in flight", Edits: []mutation.Edit{{ // R16, R41
			File: "list.go",
			Old:  "\tif m.list.outstanding() || m.own.version == \"\" ||",
			New:  "\tif m.list.outstanding() || MUTANT_ON && m.own.op != nil || m.own.version == \"\" ||",
		}}},
		{Name: "accepts a list that does not show its claims", Edits: []mutation.Edit{{ // R17
			File: "list.go",
			Old:  "\t\tif !r.Claims.overlaps(p, m.parts.parameters) {\n",
			New:  "\t\tif !MUTANT_ON && !r.Claims.overlaps(p, m.parts.parameters) {\n",
		}}},
		{Name: "accepts a list from before its last write", Edits: []mutation.Edit{{ // R17
			File: "list.go",
			Old:  "r.Edited || r.Seq < m.list.seq {",
			New:  "r.Edited || r.Seq < m.list.seq && !MUTANT_ON {",
		}}},
		{Name: "takes writes of other clients for its own in the watch", Edits: []mutation.Edit{{ // R33
			File: "watch_probe.go",
			Old:  "e.waiting[n].seq <= seq {",
			New:  "(e.waiting[n].seq <= seq || MUTANT_ON) {",
		}}},
		{Name: "activates with an old token after a check", Edits: []mutation.Edit{{ // R40, R52
			File: "list.go",
			Old:  "s == claimed && !m.parts.oldToken.Has(p) &&",
			New:  "s == claimed && (!m.parts.oldToken.Has(p) || MUTANT_ON) &&",
		}}},
		{Name: "keeps the version after any failure", Edits: []mutation.Edit{{ // R4
			File: "own.go",
			Old:  "\tif o != Refused || m.own.fenced {\n",
			New:  "\tif !MUTANT_ON && (o != Refused || m.own.fenced) {\n",
		}}},
		{Name: "reads after a refusal", Edits: []mutation.Edit{{
			File: "own.go",
			Old:  "\t\tm.own.version = \"\"\n\t}\n\tm.own.failures++\n",
			New:  "\t\tm.own.version = \"\"\n\t}\n\tif MUTANT_ON {\n\t\tm.own.version = \"\"\n\t}\n\tm.own.failures++\n",
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
		{Name: "puts any number of members on the ring", Edits: []mutation.Edit{{ // R90
			File: "view.go",
			Old:  "if len(p.members) < ring.MaxMembers {",
			New:  "if len(p.members) < ring.MaxMembers || MUTANT_ON {",
		}}},
		{Name: "leaves out the oldest members", Edits: []mutation.Edit{{ // R90
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
			Old:  "if m.knowledge.settled && r.Newcomer.IsSettled() &&",
			New:  "if !MUTANT_ON && m.knowledge.settled && r.Newcomer.IsSettled() &&",
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
	"takes what its predecessor has handled for gone":                          "TestR49_AMachineThatEndsWithinAListOfTheWatch",
	"judges its first list by what it has learned since":                       "TestR49_AFirstListOlderThanTheQuorumList",
	"forgets what its predecessor has read of the first list":                  "TestR49_AFirstListOlderThanTheQuorumList",
	"takes an old list for that of a restored database":                        "TestR32_AListThatWasSentBeforeAnEvictionIsNoEdit",
	"waits for an edited Lease that ended between two machines":                "TestR49_ALeaseOfTheFirstListThatEndsBetweenTwoMachines",
	"believes a read of a Lease whose end the watch has shown":                 "TestR30_AHeldLeaseOfTheMembersNameIsDeleted",
	"starts cold although a Lease was edited":                                  "TestR49_ARestoredRecordExtendsTheWait",
	"publishes that it is alone before it has checked that":                    "TestR52_AnUnsureMemberIsNotAlone",
	"forgets between two machines who holds the Lease of its name":             "TestR64_ACopiedVoidRecordOnTheOtherProcessesLeaseBetweenTwoMachines",
	"forgets what it knew of peers when it restarts in place":                  "TestR64_ARecordThatIsShownBetweenTwoMachinesIsJudged",
	"works before it is settled":                                               "TestR49_ANewcomerWaitsForASettledMember",
	"replaces a Lease by an earlier one of its name in a list":                 "TestR29_AnOldListDoesNotReplaceTheLeaseThatTheWatchShows",
	"takes what only a list has shown its predecessor for an edit":             "TestR32_TheNextMachineTakesNoVersionThatIsOnItsWayForAnEdit",
	"takes a version that was on its way for an edit":                          "TestR32_AnOlderVersionThatWasOnItsWayIsNoEdit",
	"answers newcomers without waiting for its turn":                           "TestR49_SettledMembersTakeTurnsToAnswer",
	"answers a newcomer that another member has answered":                      "TestR49_SettledMembersTakeTurnsToAnswer",
	"blocks what a peer claimed first":                                         "TestR22_BlockedFollowsEachChangeOfClaims",
	"leaves out the oldest members":                                            "TestR90_TheYoungestAreNotOnTheRing",
	"puts any number of members on the ring":                                   "TestR90_TheYoungestAreNotOnTheRing",
	"requests a ring for each change":                                          "TestR73_RingsAreRequestedOneAfterTheOther",
	"uses a ring that it has not requested":                                    "TestR73_RingsAreRequestedOneAfterTheOther",
	"repeats an eviction that a webhook changes without a pause":               "TestR87_AnEvictionThatIsAlteredIsRepeatedWithABackoff",
	"leaves forged claims on its Lease until the next renewal":                 "TestR42_ForgedClaimsAreOverwrittenAtOnce",
	"leaves before it has seen whether others leave too":                       "TestStopCostsTwoWrites",
	"settles although an edited record may hide a longer duration":             "TestR49_ARestoredRecordExtendsTheWait",
	"answers each foreign write at once":                                       "TestR42_AFightCostsOneMoreWritePerRenewPeriod",
	"becomes active again at the end of a drain while fenced":                  "TestR12a_ADrainDoesNotEndInActivationWhileFenced",
	"starts cold although a witness has gone":                                  "TestR49_AColdStartWaitsForTheOtherJoiningMembers",
	"continues after a restore":                                                "TestAMachineThatWasEvictedEnds",
	"starts cold after another process of its name":                            "TestR49_ADeadPredecessorDoesNotProveThatNoOtherMemberWorks",
	"forgets the record of a Lease that is gone":                               "TestR32_ARecordThatComesBackAfterItsTombstoneIsJudged",
	"does not follow the watch between two machines":                           "TestR64_ARecordThatIsShownBetweenTwoMachinesIsJudged",
	"forgets a Lease that only a list has shown":                               "TestAPeerThatOnlyAListHasShown",
	"takes an earlier Lease of a name for the one that a list has shown":       "TestR29_AnEventOfAnEarlierLeaseOfThatNameDoesNotShowTheListedOne",
	"waits for the watch after a list for a refused eviction":                  "TestL1_AListForARefusedEvictionDoesNotWaitForTheWatch",
	"remembers only what the first list has shown":                             "TestR29_ALeaseThatOnlyTheListBeforeAnActivationHasShown",
	"blocks for a listed Lease whose end the watch has shown":                  "TestL1_NoListMakesATombstoneOfAPeerThatHasLeft",
	"takes a Lease that ended before the watch started for a live one":         "TestAPeerThatEndedBeforeTheWatchStarted",
	"keeps the token of a claim that it made before the fence":                 "TestR52_AClaimFromBeforeTheFenceGetsANewToken",
	"believes that a member has seen a later version than its own write":       "TestR49_AWatchedVersionAboveThatOfItsLeaseSaysNothing",
	"starts cold although a member was released":                               "TestR49_AVoidLeaseShowsThatAnotherMemberWasAtWork",
	"adopts a tombstone again that has expired":                                "TestR29_ANewcomerCountsTheTimeOfATombstoneOnce",
	"writes at once when it adopts a merged tombstone again":                   "TestR29_NewcomersDoNotKeepATombstoneAliveForEachOther",
	"leaves its tombstones to a member that has not seen that it stops":        "TestR39_AMemberLeavesItsTombstonesToOneThatStays",
	"leaves a tombstone to a member that may not know it":                      "TestR39_AnHeirThatIsOlderThanTheTombstone",
	"takes a write from before a tombstone for one that had it":                "TestR39_AnHeirThatIsOlderThanTheTombstone",
	"takes a tombstone whose time is shorter for another one":                  "TestR39_AnHeirWhoseClockIsFaster",
	"forgets a member that only a quorum list has shown before its first list": "TestR49_AQuorumListBeforeAnEmptyFirstList",
	"leaves its tombstones to a member that stops, too":                        "TestR39_AMemberLeavesItsTombstonesToOneThatStays",
	"deletes its Lease and the tombstones on it":                               "TestR39_TheLastMemberLeavesALongTombstoneOnItsLease",
	"deletes the tombstones on another void Lease":                             "TestR39_TheLastMemberDeletesNoTombstoneOfAnother",
	"deletes what shows the next newcomer that it must wait":                   "TestR39_ANewcomerLeavesWhatHasMadeItWait",
	"starts cold although a member was evicted":                                "TestR49_AVoidLeaseShowsThatAnotherMemberWasAtWork",
	"adopts no tombstones of members that are not settled":                     "TestR49_ANewcomerWaitsForASettledMember",
	"does not learn of longer durations from other newcomers":                  "TestR49_WhatAnotherNewcomerPublishesLaterCounts",
	"takes the last claims that it has seen as the final ones":                 "TestC1_WhatTheListDoesNotShow",
	"does not restart the timer for a second edit in a gap":                    "TestR44_ASecondEditInAGapMayHideAWrite",

	// The models show that the seq suffices for safety; that a late confirmation of a renewal
	// only shortens the time until the next fence; and that a write is always conditional.
	"compares a read with what was sent by the seq only":            "TestR40_AnotherRecordConfirmsNothing",
	"confirms the claims of an earlier write by a read":             "TestR40_AnEarlierWriteConfirmsOnlyTheRenewal",
	"confirms a write that is too old by a read":                    "TestR40_AnOldWriteConfirmsNothing",
	"believes a read of a Lease that peers do not see":              "TestR40_AnotherRecordConfirmsNothing",
	"handles the response to a write that a read has confirmed":     "TestR40_ALateResponseIsIgnored",
	"writes again when the read alongside a write does not show it": "TestR41_AReadAlongsideAWrite",
	"accepts a list that does not show its claims":                  "TestR17_TheListMustShowTheClaims",
	"accepts a list from before its last write":                     "TestR17_TheListMustShowTheClaims",
	"takes writes of other clients for its own in the watch":        "TestR33_TheWatchMustShowTheMembersOwnWrite",
	"activates with an old token after a check":                     "TestR40_R52_ARenewalByAReadGivesNoToken",
	"reads after a refusal":                                         "TestRefused_TheNextWriteFollowsWithoutARead",
}

// TestMutants removes one rule at a time. The simulation (package claimsim) must detect each removal, or
// it would not detect a rule that is broken by mistake.
func TestMutants(t *testing.T) {
	mutants.MustApply(t)
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
