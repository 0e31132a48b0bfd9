// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tom-ludwig/operator-scaling/test/audit"
)

// clean is a run without a fault: B takes over partition 2 from A, and the partition has
// no owner for one millisecond.
const clean = `
A   1 join
A   2 activate p=1,2
A  10 start x rv=1 token=5 p=1
A  20 write x
A  30 end   x rv=1 token=5 p=1
A  32 start y rv=1 token=5 p=2
A  38 end   y rv=1 token=5 p=2
A  40 release p=2
B   3 join
B  41 activate p=2
B  50 start y rv=2 token=9 p=2
B  60 end   y rv=2 token=9 p=2
A  70 start x rv=2 token=5 p=1
A  80 end   x rv=2 token=5 p=1
B 100 start y rv=3 token=9 p=2
B 110 end   y rv=3 token=9 p=2
`

// withoutTimes compares what a process did; TestLives compares when.
var withoutTimes = cmpopts.IgnoreFields(Life{}, "Begin", "End", "Owned", "Joined", "Fenced", "Paused")

var cleanOptions = Options{Final: map[string]string{"x": "2", "y": "3"}}

const cleanGap = "gap partition 2 40-41 after release of A, B"

func TestCleanRunHasNoFaults(t *testing.T) {
	r := Check(parse(t, clean), cleanOptions)
	if diff := cmp.Diff([]string{cleanGap}, findings(r)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if r.Handovers != 1 || r.Moves != 1 || r.Reconciles != 5 || r.Failed != 0 {
		t.Errorf("%d handovers, %d moves, %d reconciles, %d failed; want 1, 1, 5, 0", r.Handovers, r.Moves, r.Reconciles, r.Failed)
	}
	if diff := cmp.Diff(map[int]int{2: 1, 3: 1}, r.KeysByReconciles); diff != "" {
		t.Errorf("keys by reconciles (-want +got):\n%s", diff)
	}
	want := []Life{
		{Process: "A", Members: []string{"A_1"}, Reconciles: 3, Keys: 2, Activated: 2, Released: 1, Owns: 1, Joins: 1},
		{Process: "B", Members: []string{"B_1"}, Reconciles: 2, Keys: 1, Activated: 1, Owns: 1, Joins: 1},
	}
	if diff := cmp.Diff(want, r.Processes, withoutTimes); diff != "" {
		t.Errorf("processes (-want +got):\n%s", diff)
	}
}

// Each case removes or replaces one line of the clean run, and lists everything that
// is then found in addition to the gap of the handover.
func TestEachFaultIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string
		want     []string
	}{
		"F1_TwoProcessesWork": {
			old: "A  70 start x", new: "B  75 start x rv=2 p=1\nB 78 end x rv=2 p=1\nA  70 start x",
			want: []string{"F1 x 75-78 A B"},
		},
		"F1_OpenWorkLastsUntilTheEndOfTheRun": {
			old: "A  38 end   y rv=1 token=5 p=2",
			want: []string{
				"F1 y 50-60 A B", "F1 y 100-110 A B",
			},
		},
		"F1_OpenWorkLastsUntilDeath": {
			old: "A  38 end   y rv=1 token=5 p=2", new: "A 81 died",
			want: []string{"F1 y 50-60 A B", "gap partition 1 81-110 after death of A, no owner"},
		},
		"F1_TwoInOneProcess": {
			old: "A  20 write x", new: "A 20 start x rv=1 p=1\nA 25 end x rv=1 p=1",
			want: []string{"F1 x 20-25 A A"},
		},
		"F2_NoRelease": {
			old:  "A  40 release p=2",
			want: []string{"-", "F2 partition 2 41-110 A B"},
		},
		"F2_LateRelease": {
			old: "A  40 release p=2", new: "A 42 release p=2",
			want: []string{"-", "F2 partition 2 41-42 A B"},
		},
		"F3_TokenDecreases": {
			old: "B  50 start y rv=2 token=9", new: "B 50 start y rv=2 token=4",
			want: []string{"F3 y 5 at 31ms by A, then 4 at 49ms by B"},
		},
		"F3_TokensCanHaveAnyLength": {
			old: "B 100 start y rv=3 token=9", new: "B 100 start y rv=3 token=10000000000000000000000",
		},
		"F4_LastVersionNotProcessed": {
			old: "B 100 start y rv=3", new: "B 100 start y rv=2",
			want: []string{"F4 y is at version 3, last processed at version 2"},
		},
		"F4_LastVersionFailed": {
			old: "B 110 end   y", new: "B 110 end y err=conflict",
			want: []string{"F4 y is at version 3, last processed at version 2"},
		},
		"F4_LastVersionUnfinished": {
			old: "B 110 end   y rv=3 token=9 p=2", new: "B 110 leave",
			want: []string{"F4 y is at version 3, last processed at version 2"},
		},
		"F5_NoTakeover": {
			old: "B  41 activate p=2",
			want: []string{
				"-", "gap partition 2 40-110 after release of A, no owner",
			},
		},
		"F5_OwnerDies": {
			old: "B 110 end ", new: "B 105 died\nA 109 activate p=2\nA 109 end ",
			want: []string{
				"F4 y is at version 3, last processed at version 2",
				cleanGap, "gap partition 2 105-109 after death of B, A",
				"F7 A at 108ms: end y does not belong to any work that was started",
			},
		},
		"F5_OwnerIsFenced": {
			old: "A  70 start x rv=2 token=5 p=1", new: "A 62 fence\nA 65 resume\nA 70 start x rv=2 token=5 p=1",
			want: []string{"gap partition 1 62-65 after fence of A, A", cleanGap},
		},
		"F5_OwnerIsFencedUntilTheEnd": {
			old: "A  80 end ", new: "A 80 fence\nA 80 end ",
			want: []string{"gap partition 1 80-110 after fence of A, no owner", cleanGap},
		},
		"F5_OwnerIsPaused": {
			old: "A  70 start x", new: "A 62 paused 65\nA  70 start x",
			want: []string{"gap partition 1 62-65 after pause of A, A", cleanGap},
		},
		"F5_OwnerLeaves": {
			old: "A  80 end ", new: "A 80 leave\nA 80 end ",
			want: []string{"gap partition 1 80-110 after leave of A, no owner", cleanGap},
		},
		"F5_OwnerJoinsAgain": {
			old: "A  80 end ", new: "A 80 join\nA 81 activate p=1\nA 81 end ",
			want: []string{"gap partition 1 80-81 after leave of A, A", cleanGap},
		},
		"F6_VersionDecreases": {
			old: "B  50 start y rv=2", new: "B 50 start y rv=0",
			want: []string{cleanGap, "F6 y 1 at 31ms by A, then 0 at 49ms by B"},
		},
		"F6_VersionStartsOver": {
			old: "A  32 start y rv=1", new: "A 32 start y rv=8\nA 33 end y\nA 34 start y rv=gone",
		},
		"F7_RecordAfterDeath": {
			old: "A  80 end ", new: "A 79 died\nA 80 end ",
			want: []string{
				"gap partition 1 79-110 after death of A, no owner", cleanGap,
				"F7 A at 79ms: end x was written after the process died",
			},
		},
		"F7_EndWithoutStart": {
			old: "A  10 start x rv=1 token=5 p=1",
			want: []string{
				cleanGap,
				"F7 A at 19ms: write x does not belong to any work that was started", "F7 A at 29ms: end x does not belong to any work that was started",
			},
		},
		"F7_OutOfOrder": {
			old: "A  20 write x", new: "A 9 write x",
			want: []string{cleanGap, "F7 A at 8ms: write x is older than the record before it"},
		},
		"F7_UnknownEvent": {
			old: "B   3 join", new: "B 3 jion",
			want: []string{cleanGap, "F7 B at 2ms: jion  has an unknown event type"},
		},
		"F7_TokenIsNotANumber": {
			old: "B  50 start y rv=2 token=9", new: "B 50 start y rv=2 token=nine",
			want: []string{cleanGap, "F7 B at 49ms: start y has a token that is not a number"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			script := strings.Replace(clean, c.old, c.new, 1)
			if script == clean {
				t.Fatalf("the clean run has no %q", c.old)
			}
			r := Check(parse(t, script), cleanOptions)
			got := findings(r)
			want := c.want
			switch {
			case len(want) > 0 && want[0] == "-": // without the gap of the handover
				want = want[1:]
			case !strings.Contains(strings.Join(want, "\n"), cleanGap):
				// The gap is listed after overlaps, tokens and losses, ordered by partition.
				i := 0
				for i < len(want) && (!strings.HasPrefix(want[i], "gap") || strings.HasPrefix(want[i], "gap partition 1")) {
					i++
				}
				want = append(want[:i:i], append([]string{cleanGap}, want[i:]...)...)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			mustFail := false
			for _, line := range got {
				mustFail = mustFail || !strings.HasPrefix(line, "gap ") && !strings.HasPrefix(line, "F6 ")
			}
			if (r.Err() != nil) != mustFail {
				t.Errorf("Err is %v for findings %q", r.Err(), got)
			}
		})
	}
}

func TestEndCutsTheRun(t *testing.T) {
	o := Options{End: 55e6, Final: map[string]string{"x": "1", "y": "2"}}
	want := []string{"F4 y is at version 2, last processed at version 1", cleanGap}
	r := Check(parse(t, clean), o)
	if diff := cmp.Diff(want, findings(r)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	if r.Reconciles != 3 || r.Processes[1].Unfinished != 1 {
		t.Errorf("%d reconciles, %d unfinished; want 3, 1", r.Reconciles, r.Processes[1].Unfinished)
	}
}

// A process is paused during its work for so long that another one takes over, and
// then resumes.
func TestF1_PausedWork(t *testing.T) {
	const script = `
A  10 start x rv=1 token=5
A  12 write x
A  20 paused 60
B  40 start x rv=1 token=7
B  70 end x
A  62 write x
A  63 end x
B  80 start x rv=1 token=7
B  90 end x
`
	silent := strings.Replace(script, "A  62 write x\n", "", 1)
	late := strings.Replace(strings.Replace(script, "A  62 write x", "A 75 write x", 1), "A  63", "A 76", 1)
	for name, c := range map[string]struct {
		script string
		writes bool
		want   []string
	}{
		"WhileTheOtherWorks": {script, true, []string{"F1 x 62-62 B A", "F3 x 7 at 30ms by B, then 5 at 52ms by A"}},
		"AfterTheOther":      {late, true, []string{"F3 x 7 at 30ms by B, then 5 at 65ms by A"}},
		"NoWrite":            {silent, true, nil},
		"WritesNotRecorded":  {silent, false, []string{"F1 x 60-63 B A"}},
		"EndsInThePause":     {strings.Replace(silent, "A  63 end x", "A 59 died", 1), false, nil},
		"NeverResumed":       {strings.Replace(strings.Replace(silent, "A  63 end x", "", 1), "paused 60", "paused 0", 1), false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := Check(parse(t, c.script), Options{WritesRecorded: c.writes})
			var got []string
			for _, line := range findings(r) {
				if !strings.HasPrefix(line, "gap ") { // this test is not about gaps
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// A paused owner cannot withdraw. Its own records do not prove anything, but the time
// counts as unowned.
func TestF2_F5_PausedOwner(t *testing.T) {
	r := Check(parse(t, `
A  1 activate p=1
A 20 paused 60
B 50 activate p=1
A 61 fence
B 99 start x p=1
`), Options{})
	if diff := cmp.Diff([]string{"gap partition 1 20-50 after pause of A, B"}, findings(r)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	if r.Handovers != 1 {
		t.Errorf("%d handovers, want 1: the former owner's short activity is not a handover", r.Handovers)
	}
}

func TestNothingRecorded(t *testing.T) {
	for _, processes := range [][]Process{nil, {{Name: "A"}}} {
		r := Check(processes, Options{Final: map[string]string{"x": "1"}})
		if diff := cmp.Diff([]string{"F4 x no replica finished processing it"}, findings(r)); diff != "" {
			t.Errorf("findings (-want +got):\n%s", diff)
		}
	}
}

func TestF1_PausedTwice(t *testing.T) {
	r := Check(parse(t, `
A 10 start x
A 20 paused 30
A 50 paused 60
B 40 start x
B 45 end x
A 65 write x
A 70 end x
`), Options{WritesRecorded: true})
	if diff := cmp.Diff([]string(nil), overlapsOf(r)); diff != "" {
		t.Errorf("between two pauses A did not write (-want +got):\n%s", diff)
	}
}

func overlapsOf(r *Report) []string {
	var lines []string
	for _, line := range findings(r) {
		if strings.HasPrefix(line, "F1 ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// A partition that is activated while the member is fenced is owned once the member
// resumes, or has joined again.
func TestF5_ActivatedWhileFenced(t *testing.T) {
	for _, lift := range []string{"A 30 resume", "A 29 join\nA 30 activate p=1"} {
		r := Check(parse(t, `
A 10 activate p=1
A 15 fence
A 16 release p=1
A 20 activate p=1
`+lift+"\nA 40 start x p=1"), Options{})
		if diff := cmp.Diff([]string{"gap partition 1 15-30 after fence of A, A"}, findings(r)); diff != "" {
			t.Errorf("%s: findings (-want +got):\n%s", lift, diff)
		}
	}
}

func TestHowProcessesEnd(t *testing.T) {
	r := Check(parse(t, `
A 1 join
A 10 leave
B 2 join
B 3 leave
B 4 join
B 20 died
C 3 join
C 30 start x
D 4 join
D 5 died
D 6 leave
`), Options{})
	want := []Life{
		{Process: "A", Members: []string{"A_1"}, Joins: 1, Ended: Left},
		{Process: "B", Members: []string{"B_1"}, Joins: 2, Ended: Died},
		{Process: "C", Members: []string{"C_1"}, Joins: 1, Reconciles: 1, Unfinished: 1, Keys: 1},
		{Process: "D", Members: []string{"D_1"}, Joins: 1, Ended: Died}, // its last record is a finding
	}
	if diff := cmp.Diff(want, r.Processes, withoutTimes); diff != "" {
		t.Errorf("processes (-want +got):\n%s", diff)
	}
}

func TestUnownedIsSummarizedByCause(t *testing.T) {
	var script strings.Builder
	for i := range 100 { // partition i is without an owner for i+1 ms
		fmt.Fprintf(&script, "A 1000 activate p=%d\n", i)
	}
	for i := range 100 {
		fmt.Fprintf(&script, "A 2000 release p=%d\n", i)
	}
	for i := range 100 {
		fmt.Fprintf(&script, "B %d activate p=%d\n", 2001+i, i)
	}
	script.WriteString("B 3000 fence\nB 3010 join\n")
	r := Check(parse(t, script.String()), Options{})
	want := map[Cause]Durations{
		Released: {Count: 100, P50: 50 * time.Millisecond, P99: 99 * time.Millisecond, Max: 100 * time.Millisecond},
		Fenced:   {Count: 100, P50: 10 * time.Millisecond, P99: 10 * time.Millisecond, Max: 10 * time.Millisecond, Open: 100},
	}
	if diff := cmp.Diff(want, r.Unowned); diff != "" {
		t.Errorf("unowned (-want +got):\n%s", diff)
	}
	if r.Handovers != 100 {
		t.Errorf("%d handovers, want 100", r.Handovers)
	}
}

// After the number of partitions changes, partition 2 of one process is unrelated to
// partition 2 of another.
func TestWorkAloneIgnoresPartitions(t *testing.T) {
	script := strings.Replace(clean, "A  40 release p=2", "", 1)
	options := cleanOptions
	if r := Check(parse(t, script), options); audit.Count(r.Findings, ActiveTwice) == 0 {
		t.Error("partition 2 was not reported as active on two members")
	}
	options.WorkAlone = true
	if r := Check(parse(t, script), options); len(r.Findings)+len(r.Gaps) != 0 || r.Handovers != 0 || r.Err() != nil {
		t.Errorf("with WorkAlone: %d gaps, %d handovers, %v", len(r.Gaps), r.Handovers, r.Err())
	}
}
