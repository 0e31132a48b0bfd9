// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// Faults in one line must not hide each other, and none may be missing.
func TestFaultsDoNotOverlap(t *testing.T) {
	a := axis{begin: 0, end: 1e9}
	pods := podsOf(nil)
	stacked := 0
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		var faults []Fault
		for range random.IntN(40) {
			f := Fault{Name: "f", Target: "etcd", From: random.Int64N(1e9)}
			if random.IntN(2) == 0 {
				f.To = f.From + random.Int64N(2e8)
			}
			faults = append(faults, f)
		}
		_, rows := faultRows(faults, a, pods)
		n := 0
		for _, row := range rows {
			stacked = max(stacked, row.Height/faultHeight)
			for i, x := range row.Faults {
				n++
				if x.Room < x.From || x.To < x.From || x.Top+faultHeight > row.Height {
					t.Fatalf("seed %d: %+v in a row of %d pixels", seed, x, row.Height)
				}
				for _, y := range row.Faults[:i] {
					if x.Top == y.Top && (x.From < y.To || y.Room > x.From) {
						t.Fatalf("seed %d: %+v is hidden by %+v", seed, y, x)
					}
				}
			}
		}
		if n != len(faults) {
			t.Fatalf("seed %d: %d faults drawn, want %d", seed, n, len(faults))
		}
	}
	if stacked < 3 {
		t.Errorf("at most %d lines: too few to prove much", stacked)
	}
}

func TestFaultsAreGroupedByPod(t *testing.T) {
	pods := podsOf([]worklog.Life{
		{Process: "op-10.001", Members: []string{"op-10_a"}}, {Process: "op-2.002", Members: []string{"op-2_a"}}, {Process: "op-2.003"},
	})
	shades, rows := faultRows([]Fault{
		{Name: "SIGKILL", Target: "op-10.001", From: 1e6},
		{Name: "SIGSTOP", Target: "op-2.003", From: 2e6, To: 3e6},
		{Name: "SIGKILL", Target: "op-2.002", From: 2e6},
		{Name: "outage", Target: "kube-apiserver", From: 5e6, To: 6e6},
		{Name: "load", From: 5e6, To: 9e6},
		{Name: "late", From: 11e6, To: 12e6},
	}, axis{end: 10e6}, pods)
	var got []string
	for _, r := range rows {
		got = append(got, fmt.Sprintf("%s %d", r.Target, len(r.Faults)))
	}
	if diff := cmp.Diff([]string{"everything 1", "kube-apiserver 1", "op-2 2", "op-10 1"}, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if len(shades) != 2 {
		t.Errorf("%d faults are shaded, want the 2 that affect more than one process", len(shades))
	}
}

func TestEachPodHasItsOwnColour(t *testing.T) {
	if !strings.Contains(styleText, fmt.Sprintf("\n.c%d{", colours-1)) || strings.Contains(styleText, fmt.Sprintf("\n.c%d{", colours)) {
		t.Errorf("the style sheet does not have %d colours", colours)
	}
	var lives []worklog.Life
	for i := range colours {
		lives = append(lives, worklog.Life{Process: fmt.Sprintf("op-%d.%03d", i, i)}, worklog.Life{Process: fmt.Sprintf("op-%d.%03d", i, i+50)})
	}
	pods := podsOf(lives)
	seen := map[string]int{}
	for i := range lives {
		if at, ok := seen[pods.class(i)]; ok {
			t.Errorf("%s looks like %s", lives[i].Process, lives[at].Process)
		}
		seen[pods.class(i)] = i
		if pods.list[pods.of[i]].Colour != i/2 {
			t.Errorf("%s has colour %d, want %d", lives[i].Process, pods.list[pods.of[i]].Colour, i/2)
		}
	}
}
