// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLives(t *testing.T) {
	lives := Check(parse(t, `
A  1 join
A  2 activate p=1,2,3
A 10 fence
A 12 release p=2
A 15 resume
A 15 paused 18
A 30 fence
A 33 leave
B  5 join
B  6 activate p=4
B  9 fence
B 20 died
C  7 activate p=5
C 90 release p=5
D 21 join
D 22 leave
D 23 join
D 99 join
`), Options{End: 40e6}).Processes
	var got []string
	for _, l := range lives {
		got = append(got, fmt.Sprintf("%s %s %d-%d %q joined%s fenced%s paused%s", l.Process, l.Members, l.Begin/1e6, l.End/1e6, l.Ended,
			text(l.Joined), text(l.Fenced), text(l.Paused)))
		for _, o := range l.Owned {
			got = append(got, fmt.Sprintf("  %d %d-%d-%d %q open=%t", o.Partition, o.From/1e6, o.To/1e6, o.Held/1e6, o.Cause, o.Open))
		}
	}
	want := []string{
		`A [A_1] 1-33 "leave" joined 1-33 fenced 10-15 30-33 paused 15-18`,
		`  1 2-10-15 "fence" open=false`,
		`  1 15-30-33 "fence" open=false`,
		`  2 2-10-12 "fence" open=false`,
		`  3 2-10-15 "fence" open=false`,
		`  3 15-30-33 "fence" open=false`,
		`B [B_1] 5-20 "death" joined 5-20 fenced 9-20 paused`,
		`  4 6-9-20 "fence" open=false`,
		`C [C_1] 7-40 "" joined fenced paused`,
		`  5 7-40-40 "" open=true`,
		`D [D_1] 21-40 "" joined 21-22 23-40 fenced paused`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lives (-want +got):\n%s", diff)
	}
}

func text(all []Interval) string {
	var b strings.Builder
	for _, i := range all {
		fmt.Fprintf(&b, " %d-%d", i.From/1e6, i.To/1e6)
	}
	return b.String()
}

func TestFindingsHaveTheirTime(t *testing.T) {
	r := Check(parse(t, `
A  1 activate p=1
A  2 start x rv=1 token=5 p=1
A  9 end   x rv=1 token=5 p=1
B  3 activate p=1
B  4 start x rv=2 token=4 p=1
B  5 end   x rv=2 token=4 p=1
`), Options{Final: map[string]string{"x": "3"}})
	var got []string
	for _, f := range r.Findings {
		got = append(got, fmt.Sprintf("%d %s", f.From/1e6, f.Kind))
	}
	want := []string{"4 " + Overlap, "3 " + ActiveTwice, "4 " + TokenDrop, "0 " + Loss}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}
