// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"flag"
	"testing"

	"github.com/tom-ludwig/operator-scaling/hack/mutation"
)

var mutantsFlag = flag.Bool("mutants", false, "run TestMutants")

// mutants each remove one rule on which a guarantee depends.
var mutants = mutation.Package{
	Dir: ".", Name: "informer",
	Mutants: []mutation.Mutant{
		{Name: "notes a deletion that was not this member's", Edits: []mutation.Edit{{
			File: "delivered.go",
			Old:  "if d.seq > 0 && f.informer.ownership.State(d.point) != ring.NotOwned {",
			New:  "if d.seq > 0 && (f.informer.ownership.State(d.point) != ring.NotOwned || MUTANT_ON) {",
		}}},
		{Name: "uses a tombstone again that is being delivered", Edits: []mutation.Edit{{
			File: "deletions.go",
			Old:  "\t\tif !b.shared {\n",
			New:  "\t\tif !b.shared || MUTANT_ON {\n",
		}}},
		{Name: "uses a tombstone again with what was known of another deletion", Edits: []mutation.Edit{{
			File: "deletions.go",
			Old:  "\t\t\t*b = block{}\n",
			New:  "\t\t\tif !MUTANT_ON {\n\t\t\t\t*b = block{}\n\t\t\t}\n",
		}}},
		{Name: "uses the tombstones of a waiting change again", Edits: []mutation.Edit{{
			File: "deletions.go",
			Old:  "\t\tb.shared = true\n",
			New:  "\t\tb.shared = !MUTANT_ON\n",
		}}},
		{Name: "serves a change with an older scan", Edits: []mutation.Edit{{
			File: "store.go",
			Old:  "if i.last != nil && i.last.covers >= number && i.last.number > first {",
			New:  "if i.last != nil && (i.last.covers >= number || MUTANT_ON) && i.last.number > first {",
		}}},
		{Name: "finds nothing that a release has made the handler forget after the scan", Edits: []mutation.Edit{{
			File: "replay.go",
			Old:  "if f.changes.activate(c.set) {",
			New:  "if f.changes.activate(c.set) && !MUTANT_ON {",
		}}},
		{Name: "takes a partition for complete before the stream has reached its replay", Edits: []mutation.Edit{{
			File: "complete.go",
			Old:  "f.complete.until > 0",
			New:  "f.complete.until > 0 && !MUTANT_ON",
		}}},
		{Name: "takes a version that a replay has delivered for a new one", Edits: []mutation.Edit{{
			File: "complete.go",
			Old:  "len(f.ahead) > 0",
			New:  "len(f.ahead) > 0 && !MUTANT_ON",
		}}},
		{Name: "delivers an update in a partition that was just lost", Edits: []mutation.Edit{{
			File: "complete.go",
			Old:  "f.state(s) != ring.Active",
			New:  "f.state(s) != ring.Active && !MUTANT_ON",
		}}},
		{Name: "takes a partition for complete while a change waits", Edits: []mutation.Edit{{
			File: "complete.go",
			Old:  "!f.changes.empty()",
			New:  "!f.changes.empty() && !MUTANT_ON",
		}}},
		{Name: "takes an event from before a restore for one from after the replay", Edits: []mutation.Edit{{
			File: "complete.go",
			Old:  "err == nil && versionOf(now).is(versionOf(m)) {",
			New:  "MUTANT_ON || err == nil && versionOf(now).is(versionOf(m)) {",
		}}},
		{Name: "takes an object with another key for known", Edits: []mutation.Edit{{
			File: "complete.go",
			Old:  "return err == nil && point == s.point",
			New:  "return err == nil && (point == s.point || MUTANT_ON)",
		}}},
		{Name: "replays with a scan from before a drain", Edits: []mutation.Edit{{
			File: "complete.go",
			Old:  "\tf.outdated = f.informer.scans.Load() //",
			New:  "\tif MUTANT_ON {\n\t\treturn\n\t}\n\tf.outdated = f.informer.scans.Load() //",
		}}},
		{Name: "takes a released partition for complete", Edits: []mutation.Edit{{
			File: "replay.go",
			Old:  "\t\tf.complete.removeAll(set)\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tf.complete.removeAll(set)\n\t\t}\n",
		}}},
		{Name: "lets a new handler begin with a released partition", Edits: []mutation.Edit{{
			File: "replay.go",
			Old:  "\t\ti.complete.removeAll(c.set)\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\ti.complete.removeAll(c.set)\n\t\t}\n",
		}}},
		{Name: "takes an object for known that a replay has skipped", Edits: []mutation.Edit{{
			File: "replay.go",
			Old:  "\t\tf.missed(&s)\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tf.missed(&s)\n\t\t}\n",
		}}},
		{Name: "takes an object for known that was added during a drain", Edits: []mutation.Edit{{
			File: "stream.go",
			Old:  "\t\tf.missed(&s)\n\t\tf.dropped(&s)\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tf.missed(&s)\n\t\t}\n\t\tf.dropped(&s)\n",
		}}},
		{Name: "takes an object for known that has moved to a drained key", Edits: []mutation.Edit{{
			File: "stream.go",
			Old:  "\t\tf.forget(u.id)\n\t\tf.missed(&u.located)\n",
			New:  "\t\tf.forget(u.id)\n\t\tif !MUTANT_ON {\n\t\t\tf.missed(&u.located)\n\t\t}\n",
		}}},
		{Name: "takes an object for known that has moved from a lost key", Edits: []mutation.Edit{{
			File: "stream.go",
			Old:  "\t\tf.missed(&u.located)\n\t\tf.dropped(&u.located) // this",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tf.missed(&u.located)\n\t\t}\n\t\tf.dropped(&u.located) // this",
		}}},
		{Name: "takes an object for known that has moved during a drain", Edits: []mutation.Edit{{
			File: "stream.go",
			Old:  "\tf.missed(&u.located)\n\tvar o located\n",
			New:  "\tif !MUTANT_ON {\n\t\tf.missed(&u.located)\n\t}\n\tvar o located\n",
		}}},
		{Name: "takes an object for known that has moved away in the store", Edits: []mutation.Edit{{
			File: "stream.go",
			Old:  "\t\tf.forget(l.id)\n\t\tf.missed(&u.located)\n",
			New:  "\t\tf.forget(l.id)\n\t\tif !MUTANT_ON {\n\t\t\tf.missed(&u.located)\n\t\t}\n",
		}}},
		{Name: "takes an object for known after a deletion of its name", Edits: []mutation.Edit{{
			File: "delivered.go",
			Old:  "\t\tf.missed(&s)\n",
			New:  "\t\tif !MUTANT_ON {\n\t\t\tf.missed(&s)\n\t\t}\n",
		}}},
		{Name: "does not look whether a handler's filter passes an update", Edits: []mutation.Edit{{
			File: "stream.go",
			Old:  "(f.passes == nil || f.names == nil) &&",
			New:  "(f.passes == nil || f.names == nil || MUTANT_ON) &&",
		}}},
		{Name: "trusts a wrong PointOfKey", Edits: []mutation.Edit{{
			File: "store.go",
			Old:  "err != nil || point != i.pointOfKey(key) {",
			New:  "err != nil || point != i.pointOfKey(key) && !MUTANT_ON {",
		}}},
		{Name: "lists the store for each object that was deleted", Edits: []mutation.Edit{{
			File: "store.go",
			Old:  "\tif i.keysChecked.Load() {\n",
			New:  "\tif i.keysChecked.Load() && !MUTANT_ON {\n",
		}}},
		{Name: "takes a deletion with an opaque version for an old one", Edits: []mutation.Edit{{
			File: "stream.go",
			Old:  "\t\tcase err == nil:\n\t\t\tf.dropped(s) // it did not match",
			New:  "\t\tcase err == nil || MUTANT_ON:\n\t\t\tf.dropped(s) // it did not match",
		}}},
		{Name: "delivers an outdated deletion", Edits: []mutation.Edit{{
			File: "stream.go",
			Old:  "case !exists || err == nil && order >= 0:",
			New:  "case !exists || err == nil && (order >= 0 || MUTANT_ON):",
		}}},
		{Name: "believes an event that its object is stored", Edits: []mutation.Edit{{
			File: "delivered.go",
			Old:  "now := f.informer.stored(f.informer.keyOf(s.meta)); now != nil {\n\t\t\tif m, err := meta.Accessor(now); err == nil && !differ",
			New:  "now := f.informer.stored(f.informer.keyOf(s.meta)); now != nil || MUTANT_ON {\n\t\t\tif m, err := meta.Accessor(now); MUTANT_ON || err == nil && !differ",
		}}},
		{Name: "shows deletions that the stream has not reached", Edits: []mutation.Edit{{
			File: "delivered.go",
			Old:  "!done && t.seq <= f.observed && f.activePoint",
			New:  "!done && (t.seq <= f.observed || MUTANT_ON) && f.activePoint",
		}}},
		{Name: "waits for deletions from before the handler was added", Edits: []mutation.Edit{{
			File: "replay.go",
			Old:  "t.seq > max(f.observed, f.since) ||",
			New:  "t.seq > max(f.observed, f.since) || MUTANT_ON && t.seq > f.observed ||",
		}}},
		{Name: "replays what the handler knows", Edits: []mutation.Edit{{
			File: "replay.go",
			Old:  "if _, known := f.shown[id]; known {",
			New:  "if _, known := f.shown[id]; known && !MUTANT_ON {",
		}}},
		{Name: "forgets what a replay has delivered", Edits: []mutation.Edit{{
			File: "replay.go",
			Old:  "\tf.overtake(&s)\n",
			New:  "\tif !MUTANT_ON {\n\t\tf.overtake(&s)\n\t}\n",
		}}},
		{Name: "takes a drain for a release", Edits: []mutation.Edit{{
			File: "stream.go",
			Old:  "case state == ring.Active || state == ring.Pending && !moved:",
			New:  "case state == ring.Active || state == ring.Pending && !moved && !MUTANT_ON:",
		}}},
		{Name: "does not tell whether a filter has passed a version", Edits: []mutation.Edit{{
			File: "replay.go",
			Old:  "f.notifyReleased(obj, known.passed)",
			New:  "f.notifyReleased(obj, known.passed || MUTANT_ON)",
		}}},
		{Name: "shows an unfiltered handler nothing again", Edits: []mutation.Edit{{
			File: "unfiltered.go",
			Old:  "\tf.again(now, add)\n",
			New:  "\tif !MUTANT_ON {\n\t\tf.again(now, add)\n\t}\n",
		}}},
		{Name: "does not add an object again after the deletion of an earlier one", Edits: []mutation.Edit{{
			File: "unfiltered.go",
			Old:  "\tcase add:\n",
			New:  "\tcase add && !MUTANT_ON:\n",
		}}},
		{Name: "forgets that a late object is to be added again", Edits: []mutation.Edit{{
			File: "unfiltered.go",
			Old:  "f.late[id] = f.late[id] || add",
			New:  "f.late[id] = (f.late[id] || add) && !MUTANT_ON",
		}}},
		{Name: "shows an unfiltered handler what the stream has not reached", Edits: []mutation.Edit{{
			File: "unfiltered.go",
			Old:  "!known || state != f.informer.stateOf(m) {",
			New:  "!MUTANT_ON && (!known || state != f.informer.stateOf(m)) {",
		}}},
		{Name: "does not show an unfiltered handler what the stream has reached", Edits: []mutation.Edit{{
			File: "unfiltered.go",
			Old:  "\tif late {\n\t\tdelete(p.late, id)\n",
			New:  "\tif late && !MUTANT_ON {\n\t\tdelete(p.late, id)\n",
		}}},
		{Name: "loses a late object with the event that made the handler panic", Edits: []mutation.Edit{{
			File: "unfiltered.go",
			Old:  "late := p.late[id]; late { //",
			New:  "late := p.late[id]; late && !MUTANT_ON { //",
		}}},
		{Name: "ends the first replay before the stream has reached it", Edits: []mutation.Edit{{
			File: "unfiltered.go",
			Old:  "f.activated && len(f.late) == 0 {",
			New:  "f.activated && (len(f.late) == 0 || MUTANT_ON) {",
		}}},
		{Name: "waits for an object that was deleted", Edits: []mutation.Edit{{
			File: "unfiltered.go",
			Old:  "\tdelete(p.late, s.id)\n",
			New:  "\tif !MUTANT_ON {\n\t\tdelete(p.late, s.id)\n\t}\n",
		}}},
		{Name: "forgets the deletions that an unfiltered handler has seen", Edits: []mutation.Edit{{
			File: "unfiltered.go",
			Old:  "\tp.noteDelivered(p.remember(&s))\n",
			New:  "\tif !MUTANT_ON {\n\t\tp.noteDelivered(p.remember(&s))\n\t}\n",
		}}},
		{Name: "makes an unfiltered handler forget what is released", Edits: []mutation.Edit{{
			File: "replay.go",
			Old:  "\t\tif f.informer.unfiltered {\n\t\t\treturn\n",
			New:  "\t\tif f.informer.unfiltered && !MUTANT_ON {\n\t\t\treturn\n",
		}}},
		{Name: "calls a handler that has removed itself", Edits: []mutation.Edit{{
			File: "delivered.go",
			Old:  "\tif !f.cleared.Load() {\n\t\tadd(s.obj)",
			New:  "\tif !f.cleared.Load() || MUTANT_ON {\n\t\tadd(s.obj)",
		}}},
		{Name: "calls a removed handler from another goroutine", Edits: []mutation.Edit{{
			File: "unfiltered.go",
			Old:  "\tif p.cleared.Load() {\n\t\treturn\n\t}\n\tdefer p.caughtUp()\n\tp.record(Passed)\n\tif m, err",
			New:  "\tif p.empty || p.cleared.Load() && !MUTANT_ON {\n\t\treturn\n\t}\n\tdefer p.caughtUp()\n\tp.record(Passed)\n\tif m, err",
		}}},
		{Name: "leaves the first replay of a removed handler open", Edits: []mutation.Edit{{
			File: "filter.go",
			Old:  "\tf.endFirst()\n",
			New:  "\tif !MUTANT_ON {\n\t\tf.endFirst()\n\t}\n",
		}}},
		{Name: "calls handlers of a stopped informer", Edits: []mutation.Edit{{
			File: "replay.go",
			Old:  "if f.cleared.Load() || f.informer.IsStopped() {",
			New:  "if f.cleared.Load() || f.informer.IsStopped() && !MUTANT_ON {",
		}}},
	},
}

// TestMutants removes one rule at a time. A test of a guarantee must fail for each of them.
func TestMutants(t *testing.T) {
	mutants.MustApply(t)
	if !*mutantsFlag {
		t.Skip("takes a minute: go test ./informer -run TestMutants -v -args -mutants")
	}
	binary := mutants.BuildTest(t)
	mutants.MustPass(t, binary, "-test.run=^TestI[0-9]+_")
	for _, m := range mutants.Mutants {
		t.Run(m.Name, func(t *testing.T) { m.MustFail(t, binary, "-test.run=^TestI[0-9]+_") })
	}
}
