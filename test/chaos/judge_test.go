// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit"
	"github.com/tom-ludwig/operator-scaling/test/audit/etcdlog"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

const ms = int64(time.Millisecond)

// passed returns the result of a run without breaches.
func passed() *Result {
	r := &Result{
		Options:   Defaults(),
		Evictions: 50, Exits: 5,
		Records: &worklog.Report{Handovers: 1000, Unowned: map[worklog.Cause]worklog.Durations{}},
		Counted: map[string]float64{},
	}
	for _, c := range counters {
		r.Counted[c.what] = 50
	}
	for _, name := range r.Options.Kinds {
		r.Injections = append(r.Injections, &Injection{Kind: name, Target: "op-0"})
	}
	return r
}

func TestJudgeFindsEachBreach(t *testing.T) {
	finding := func(kind string) func(*Result) {
		return func(r *Result) { r.Records.Findings = []audit.Finding{{Kind: kind, Subject: "ns/foo"}} }
	}
	for name, c := range map[string]struct {
		break_ func(*Result)
		want   string
	}{
		"nothing":               {func(*Result) {}, ""},
		"V1 two work":           {finding(worklog.Overlap), "V1"},
		"V1 two active":         {finding(worklog.ActiveTwice), "V1"},
		"V1 impossible records": {finding(worklog.Problem), "V1"},
		"V2 token":              {finding(worklog.TokenDrop), "V2"},
		"V3 loss":               {finding(worklog.Loss), "V3"},
		"V4 no owner":           {func(r *Result) { r.Records.Gaps = []worklog.Gap{{From: 1, To: 2, Open: true}} }, "V4"},
		"V4 far too long":       {func(r *Result) { r.Records.Gaps = []worklog.Gap{{To: int64(10 * time.Minute)}} }, "V4"},
		"V4 as long as an outage": {func(r *Result) {
			r.Records.Gaps = []worklog.Gap{{From: 1, To: int64(time.Minute)}}
			r.Injections = append(r.Injections, &Injection{Kind: "outage", Target: servers, To: int64(time.Minute)})
		}, ""},
		"V4 as long as an outage, without one": {func(r *Result) { r.Records.Gaps = []worklog.Gap{{To: int64(time.Minute)}} }, "V4"},
		"V5 history":                           {func(r *Result) { r.History.Findings = []audit.Finding{{Kind: etcdlog.StrayWrite}} }, "V5"},
		"V6 no handovers":                      {func(r *Result) { r.Records.Handovers = 0 }, "V6"},
		"V6 no evictions":                      {func(r *Result) { r.Evictions = 0 }, "V6"},
		"V6 no refused evictions":              {func(r *Result) { r.Counted["refused evictions"] = 0 }, "V6"},
		"V6 no contested claims":               {func(r *Result) { r.Counted[contested] = 0 }, "V6"},
		"V6 no fence":                          {func(r *Result) { r.Counted["fence trips"] = 0 }, "V6"},
		"V6 no conflicts":                      {func(r *Result) { r.Counted["Lease write conflicts"] = 0 }, "V6"},
		"V6 a fault failed every time":         {func(r *Result) { r.Injections[3].Failed = true }, "V6"},
	} {
		t.Run(name, func(t *testing.T) {
			r := passed()
			c.break_(r)
			r.judge()
			var got []string
			for _, b := range r.Breaches {
				got = append(got, b.Check)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("breaches of %q, want %q", got, c.want)
			}
			if (r.Err() == nil) != (c.want == "") {
				t.Errorf("Err is %v", r.Err())
			}
			if strings.Contains(r.Text(), "\nPASSED") != (c.want == "") {
				t.Errorf("the report is:\n%s", r.Text())
			}
		})
	}
}

// A gap is attributed to the fault on the previous owner, then to one on all replicas,
// then to one on the next owner.
func TestUnownedTimesAreAttributedToFaults(t *testing.T) {
	const s = int64(time.Second)
	r := passed()
	r.Injections = []*Injection{
		{Kind: "kill", Target: "op-0", From: 100 * s, To: 101 * s},
		{Kind: "outage", Target: servers, From: 200 * s, To: 220 * s},
		{Kind: "slow", Target: "op-1", From: 205 * s, To: 210 * s},
		{Kind: "kill", Target: "op-0", From: 300 * s, To: 301 * s},
		{Kind: "slow", Target: "op-1", From: 300 * s, To: 310 * s},
	}
	gap := func(before, after string, from, to int64) {
		r.Records.Gaps = append(r.Records.Gaps, worklog.Gap{Before: before, After: after, From: from * s, To: to * s})
	}
	gap("op-0.001", "op-1.002", 100, 105) // the first kill
	gap("op-2.003", "op-2.003", 203, 219) // the outage, and nothing else
	gap("op-1.002", "op-2.003", 206, 221) // slow, in addition to the outage
	gap("op-0.004", "op-1.002", 300, 307) // the second kill, and the next owner is slow
	gap("op-2.003", "op-3.005", 400, 401) // no fault
	for kind, want := range map[string]times{
		"kill":   {All: []time.Duration{5 * time.Second, 7 * time.Second}, Alone: []time.Duration{5 * time.Second}},
		"outage": {All: []time.Duration{16 * time.Second}, Alone: []time.Duration{16 * time.Second}},
		"slow":   {All: []time.Duration{15 * time.Second}},
		"(none)": {All: []time.Duration{time.Second}, Alone: []time.Duration{time.Second}},
	} {
		unowned := r.Unowned()
		i := slices.IndexFunc(unowned, func(t *times) bool { return t.Kind == kind })
		if i < 0 {
			t.Fatalf("%q is missing", kind)
		}
		if got := unowned[i]; !slices.Equal(got.All, want.All) || !slices.Equal(got.Alone, want.Alone) {
			t.Errorf("%q: %v, alone %v; want %v, alone %v", kind, got.All, got.Alone, want.All, want.Alone)
		}
	}
}

// The report must count the findings of each kind.
func TestReportCountsFindings(t *testing.T) {
	for kind, want := range map[string]string{
		worklog.Overlap:     "1     objects that two replicas worked on at the same time (V1)",
		worklog.ActiveTwice: "1     partitions active on two members at the same time (V1)",
		worklog.TokenDrop:   "1     tokens that decreased (V2)",
		worklog.Loss:        "1     objects not processed at their last version (V3)",
	} {
		r := passed()
		r.Records.Findings = []audit.Finding{{Kind: kind}}
		if text := r.Text(); !strings.Contains(text, "\n"+want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no folder":           func(o *Options) { o.Dir = "" },
		"too few replicas":    func(o *Options) { o.Replicas = 2 },
		"half a second":       func(o *Options) { o.LeaseDuration = 1500 * time.Millisecond },
		"an unknown fault":    func(o *Options) { o.Kinds = []string{"rain"} },
		"a negative duration": func(o *Options) { o.Duration = -1 },
		"no objects":          func(o *Options) { o.Objects = 0 },
	} {
		o := Defaults()
		o.Dir = "x"
		if err := o.validate(); err != nil {
			t.Fatal(err)
		}
		change(&o)
		if err := o.validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestKindsHaveUniqueNames(t *testing.T) {
	names := Defaults().Kinds
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("two faults have the same name: %q", names)
	}
	for _, name := range names {
		if strings.Contains(name, ";") {
			t.Errorf("%q cannot be passed to -only, which separates names by semicolons", name)
		}
	}
}

// Overlapping work in two records is a breach. The rest is covered by the tests of the
// checker, on which judge relies.
func TestOverlappingRecordsAreABreach(t *testing.T) {
	work := func(name string, from, to int64) worklog.Process {
		return worklog.Process{Name: name, Records: []worklog.Record{
			{Time: from * ms, Event: worklog.Start, Member: name, Key: "ns/foo", Version: "1"},
			{Time: to * ms, Event: worklog.End, Member: name, Key: "ns/foo", Version: "1"},
		}}
	}
	r := passed()
	report := worklog.Check([]worklog.Process{work("op-0.001", 1, 10), work("op-1.002", 9, 12)}, worklog.Options{})
	report.Handovers = 1000
	r.Records = report
	r.judge()
	if len(r.Breaches) != 1 || r.Breaches[0].Check != "V1" {
		t.Errorf("breaches: %v", r.Breaches)
	}
}
