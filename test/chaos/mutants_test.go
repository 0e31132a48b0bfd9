// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos_test

import (
	"bytes"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/chaos"
)

var mutants = flag.Bool("mutants", false, "run TestMutantsAreCaught, some two minutes for each")

// Replicas in whose code one rule is missing must not pass: that is the check of the
// checks. The faults are those against which the rule stands; the other rules are taken
// out in the simulations, which are faster.
func TestMutantsAreCaught(t *testing.T) {
	if !*mutants {
		t.Skip("takes some minutes: go test ./chaos -run TestMutantsAreCaught -v -args -mutants")
	}
	for _, m := range []struct {
		name  string
		env   string
		kinds []string
		want  []string // one of these checks must find it
	}{
		{
			"there is no fence", "BROKEN_CLAIM_RULE=fenceAtAll",
			[]string{"Lease writes: black hole", "Lease writes: arrive two lease durations late"},
			[]string{"V1", "V5"},
		},
		{
			"a partition is released before its work has ended", "BROKEN_CLAIM_RULE=drainFirst",
			[]string{"slow reconciles while partitions move"},
			[]string{"V1", "V5"},
		},
		{
			"a drain waits for nothing", "BROKEN_LOOP_RULE=waitForWork",
			[]string{"slow reconciles while partitions move"},
			[]string{"V1", "V5"},
		},
	} {
		t.Run(m.name, func(t *testing.T) {
			r, err := chaos.Run(t.Context(), chaos.Options{
				Dir: t.TempDir(), Duration: time.Minute, Kinds: m.kinds,
				BuildFlags: []string{"-tags=mutants"}, Env: []string{m.env}, Progress: progress{t},
			})
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			if err := r.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			_, verdict, _ := strings.Cut(text.String(), "FAILED")
			t.Log("FAILED" + verdict)
			if !slices.ContainsFunc(r.Breaches, func(b chaos.Breach) bool { return slices.Contains(m.want, b.Check) }) {
				t.Errorf("it has passed; %v must find it", m.want)
			}
		})
	}
}
