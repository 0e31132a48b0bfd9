// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos_test

import (
	"flag"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/hack/mutation"
	"github.com/tom-ludwig/operator-scaling/test/build"
	"github.com/tom-ludwig/operator-scaling/test/chaos"
)

var mutants = flag.Bool("mutants", false, "run TestMutantsAreCaught, about two minutes for each")

// rules are removed from the replicas. The other mutants of the state machine and of the
// loop are next to their own tests. One build of the replica serves all of these rules.
var rules = []mutation.Package{
	{Name: "claim", Dir: "shard/internal/claim", Mutants: []mutation.Mutant{
		{Name: "has no fence", Edits: []mutation.Edit{{
			File: "own.go",
			Old:  "\tif claimed := m.parts.confirm(",
			New:  "\tif MUTANT_ON {\n\t\tm.own.fence = Time{1<<63 - 1, 1<<63 - 1}\n\t}\n\tif claimed := m.parts.confirm(",
		}}},
		{Name: "makes no tombstones", Edits: []mutation.Edit{{
			File: "tombstones.go",
			Old:  "func (m *Machine) putTombstone(t Tombstone, until Time) {\n",
			New:  "func (m *Machine) putTombstone(t Tombstone, until Time) {\n\tif MUTANT_ON {\n\t\treturn\n\t}\n",
		}}},
		{Name: "releases a partition before its work has ended", Edits: []mutation.Edit{{
			File: "partitions.go",
			Old:  "\t\t\t\ttoDrain.Add(p)\n",
			New:  "\t\t\t\ttoDrain.Add(p)\n\t\t\t\tif MUTANT_ON {\n\t\t\t\t\tt.state[p] = drained\n\t\t\t\t}\n",
		}}},
	}},
	{Name: "member", Dir: "shard/internal/member", Mutants: []mutation.Mutant{
		{Name: "drains without waiting", Edits: []mutation.Edit{{
			File: "components.go",
			Old:  "\t\t\tidle.Remove(",
			New:  "\t\t\tif MUTANT_ON {\n\t\t\t\tcontinue\n\t\t\t}\n\t\t\tidle.Remove(",
		}}},
	}},
}

// TestMutantsAreCaught tests the checks: replicas without one rule must not pass. The
// faults are those against which the rule protects; the other rules are removed in the
// simulations, which are faster.
func TestMutantsAreCaught(t *testing.T) {
	root, err := build.Root()
	if err != nil {
		t.Fatal(err)
	}
	for i := range rules {
		rules[i].Dir = filepath.Join(root, rules[i].Dir)
	}
	overlay, err := mutation.WriteOverlay(t.TempDir(), rules...)
	if err != nil {
		t.Fatal(err)
	}
	if !*mutants {
		t.Skip("takes some minutes: go test ./chaos -run TestMutantsAreCaught -v -args -mutants")
	}
	for _, m := range []struct {
		name  string
		kinds []string
	}{
		{"has no fence", []string{"Lease writes: black hole", "Lease writes: arrive two lease durations late"}},
		{"makes no tombstones", []string{"Lease deleted of a replica with a longer duration that is cut off"}},
		{"releases a partition before its work has ended", []string{"slow reconciles while partitions move"}},
		{"drains without waiting", []string{"slow reconciles while partitions move"}},
	} {
		t.Run(m.name, func(t *testing.T) {
			o := chaos.Defaults()
			o.Dir, o.Duration, o.Kinds, o.Progress = t.TempDir(), time.Minute, m.kinds, progress{t}
			o.BuildFlags, o.Env = []string{"-overlay", overlay}, []string{mutation.Env + "=" + m.name}
			r, err := chaos.Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			_, verdict, _ := strings.Cut(r.Text(), "FAILED")
			t.Log("FAILED" + verdict)
			if !slices.ContainsFunc(r.Breaches, func(b chaos.Breach) bool { return b.Check == "V1" || b.Check == "V5" }) {
				t.Error("the run passed; V1 or V5 must find the missing rule")
			}
		})
	}
}
