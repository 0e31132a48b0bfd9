// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"flag"
	"testing"

	"github.com/tom-ludwig/operator-scaling/hack/mutation"
)

var mutantsFlag = flag.Bool("mutants", false, "run TestMutants")

// mutants each remove one rule on which a guarantee depends.
var mutants = mutation.Package{
	Dir: ".", Name: "workqueue",
	Mutants: []mutation.Mutant{
		{Name: "hands out what is not active", Edits: []mutation.Edit{{ // Q1
			File: "queue.go",
			Old:  "\t\tif state == ring.Active {\n\t\t\tif e.since,",
			New:  "\t\tif state == ring.Active || MUTANT_ON {\n\t\t\tif e.since,",
		}}},
		{Name: "hands out while fenced", Edits: []mutation.Edit{{ // Q5
			File: "queue.go",
			Old:  " fenced = q.fence(); !fenced {",
			New:  " fenced = q.fence(); !fenced || MUTANT_ON {",
		}}},
		{Name: "drops what is pending", Edits: []mutation.Edit{{ // Q3
			File: "queue.go",
			Old:  "if foreign = state != ring.Active && state != ring.Pending; foreign",
			New:  "if foreign = state != ring.Active && (state != ring.Pending || MUTANT_ON); foreign",
		}}},
		{Name: "forgets an Add during the work", Edits: []mutation.Edit{{ // Q3
			File: "queue.go",
			Old:  "\t\tif !e.again {\n\t\t\te.again = true\n",
			New:  "\t\tif !e.again && !MUTANT_ON {\n\t\t\te.again = true\n",
		}}},
		{Name: "does not park what is queued", Edits: []mutation.Edit{{ // the work would begin during a drain
			File: "readmit.go",
			Old:  "if state := q.state(e.point, e.unkeyed); state != ring.Active {",
			New:  "if state := q.state(e.point, e.unkeyed); state != ring.Active && !MUTANT_ON {",
		}}},
		{Name: "leaves parked items parked", Edits: []mutation.Edit{{ // Q3
			File: "readmit.go",
			Old:  "\t\tcase ring.Active:\n\t\t\tadd(q.wait(e, state))",
			New:  "\t\tcase ring.Active:\n\t\t\tif MUTANT_ON {\n\t\t\t\treturn\n\t\t\t}\n\t\t\tadd(q.wait(e, state))",
		}}},
		{Name: "keeps the failures of a partition that has left", Edits: []mutation.Edit{{ // Q4
			File: "readmit.go",
			Old:  "return state != ring.Active && state != ring.Pending\n",
			New:  "return state != ring.Active && state != ring.Pending && !MUTANT_ON\n",
		}}},
		{Name: "does not add interrupted work again", Edits: []mutation.Edit{{ // Q11, R21
			File: "queue.go",
			Old:  "if !again && interrupted && !q.shuttingDown {",
			New:  "if !again && interrupted && !q.shuttingDown && !MUTANT_ON {",
		}}},
		{Name: "believes that work which a drain has covered was completed", Edits: []mutation.Edit{{ // Q11
			File: "drain.go",
			Old:  "return t.cause != nil || t.draining ||",
			New:  "return t.cause != nil || t.draining && !MUTANT_ON ||",
		}}},
		{Name: "forgets that the fence has refused an effect", Edits: []mutation.Edit{{ // Q11
			File: "drain.go",
			Old:  " t.refused }",
			New:  " t.refused && !MUTANT_ON }",
		}}},
		{Name: "does not list effects of work that is done", Edits: []mutation.Edit{{ // Q2
			File: "queue.go",
			Old:  "\t\tif t.underWay() {\n",
			New:  "\t\tif t.underWay() && !MUTANT_ON {\n",
		}}},
		{Name: "a fence does not abort effects of work that is done", Edits: []mutation.Edit{{ // Q2
			File: "drain.go",
			Old:  "\t\tif fenced() {\n\t\t\taborted = append(aborted, t.effects...)",
			New:  "\t\tif fenced() && !MUTANT_ON {\n\t\t\taborted = append(aborted, t.effects...)",
		}}},
		{Name: "gives out a context that a drain has not cancelled", Edits: []mutation.Edit{{ // Q6
			File: "drain.go",
			Old:  "\tif cause != nil {\n\t\tcancel(cause)\n\t}\n",
			New:  "\tif cause != nil && !MUTANT_ON {\n\t\tcancel(cause)\n\t}\n",
		}}},
		{Name: "ends the work with its parent", Edits: []mutation.Edit{{ // Q6
			File: "drain.go",
			Old:  "\tctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))\n",
			New:  "\tparent := context.WithoutCancel(ctx)\n\tif MUTANT_ON {\n\t\tparent = ctx\n\t}\n\tctx, cancel := context.WithCancelCause(parent)\n",
		}}},
		{Name: "a drain covers items without a point", Edits: []mutation.Edit{{ // Q8
			File: "drain.go",
			Old:  "return func(e *entry[T]) bool { return !e.unkeyed && hit[e.point] }",
			New:  "return func(e *entry[T]) bool { return (!e.unkeyed || MUTANT_ON) && hit[e.point] }",
		}}},
		{Name: "notifies of no interrupted Done", Edits: []mutation.Edit{{ // a drain would not end
			File: "queue.go",
			Old:  "if interrupted && onDone != nil {",
			New:  "if interrupted && onDone != nil && !MUTANT_ON {",
		}}},
		{Name: "keeps parked items after a shutdown", Edits: []mutation.Edit{{ // Q10
			File: "shutdown.go",
			Old:  "\tq.items.each(parked, func(e *entry[T]) { dropped = append(dropped, q.reject(e, ring.NotOwned)) })\n",
			New:  "\tif !MUTANT_ON {\n\t\tq.items.each(parked, func(e *entry[T]) { dropped = append(dropped, q.reject(e, ring.NotOwned)) })\n\t}\n",
		}}},
		{Name: "is closed while items are queued", Edits: []mutation.Edit{{ // Q10
			File: "shutdown.go",
			Old:  "case now-q.untouched >= abandonedAfter:",
			New:  "case now-q.untouched >= abandonedAfter || MUTANT_ON:",
		}}},
		{Name: "takes work that has ended for work that a drain waits for", Edits: []mutation.Edit{{ // Q6
			File: "acquire.go",
			Old:  "!work.work.over() &&",
			New:  "(!work.work.over() || MUTANT_ON) &&",
		}}},
		{Name: "wakes callers that belong to no work", Edits: []mutation.Edit{{ // Q6
			File: "acquire.go",
			Old:  "\tif InWork(ctx) {\n",
			New:  "\tif InWork(ctx) || MUTANT_ON {\n",
		}}},
		{Name: "shows the time of a hand-out after it", Edits: []mutation.Edit{{ // Q9
			File: "shadow.go",
			Old:  "\tm.clock.during.Store(0)\n",
			New:  "\tif !MUTANT_ON {\n\t\tm.clock.during.Store(0)\n\t}\n",
		}}},
	},
}

// TestMutants removes one rule at a time. A test of a guarantee must fail for each of them: not
// only the model, whose report says little.
func TestMutants(t *testing.T) {
	mutants.MustApply(t)
	if !*mutantsFlag {
		t.Skip("takes minutes: go test ./workqueue -run TestMutants -v -args -mutants")
	}
	binary := mutants.BuildTest(t)
	arguments := []string{"-test.run=^TestQ[0-9]+_", "-test.failfast", "-test.timeout=60s"}
	mutants.MustPass(t, binary, arguments...)
	for _, m := range mutants.Mutants {
		t.Run(m.Name, func(t *testing.T) { m.MustFail(t, binary, arguments...) })
	}
}
