// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/timeline"
)

// The files that a run writes into its directory.
const (
	TextFile     = "report.txt"
	JSONFile     = "report.json"
	TimelineFile = "timeline.html"
)

// Text returns the table of faults and figures.
func (r *Result) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d faults in %v on %d replicas, %d objects, %d changes; lease duration %v; %d processes\n\n",
		r.Options.Seed, len(r.Injections), r.Faulty.Round(time.Second), r.Options.Replicas, r.Options.Objects, r.Changes, r.Options.LeaseDuration, len(r.processes))
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	next := func() { // the next table has its own columns
		_ = table.Flush() // writes to a buffer do not fail
		fmt.Fprintln(&b)
	}
	fmt.Fprintln(table, "FAULT\tTIMES\tMOVES\tNO OWNER P50\tP99\tMAX\tMAX WITH OTHER FAULTS")
	unowned := r.unowned()
	injected := r.injected()
	names := slices.Sorted(maps.Keys(injected))
	for kind := range unowned {
		if injected[kind] == 0 && kind != "" {
			names = append(names, kind)
		}
	}
	for _, kind := range append(names, "") {
		t := unowned[kind]
		name := kind
		if kind == "" {
			name = "(none)"
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%v\t%v\t%v\t%v\n", name, injected[kind], len(t.all),
			short(quantile(t.alone, 50)), short(quantile(t.alone, 99)), short(quantile(t.alone, 100)), short(quantile(t.all, 100)))
	}
	next()
	fmt.Fprintln(table, "PREVIOUS OWNER\tMOVES\tNO OWNER P50\tP99\tMAX")
	for _, cause := range slices.Sorted(maps.Keys(r.Records.Unowned)) {
		d := r.Records.Unowned[cause]
		fmt.Fprintf(table, "%s\t%d\t%v\t%v\t%v\n", cmp.Or(causeTexts[cause], string(cause)), d.Count, short(d.P50), short(d.P99), short(d.Max))
	}
	next()

	c := r.Records
	// Reconciles that started with an older version of their object than another process
	// had worked on before, because their cache lagged. This is harmless as long as writes
	// are conditional.
	older := 0
	for _, d := range c.VersionDrops {
		if d.First != d.Second {
			older++
		}
	}
	row := func(what string, value any) { fmt.Fprintf(table, "%v\t%s\n", value, what) }
	row("objects that two replicas worked on at the same time (V1)", audit.Count(c.Findings, worklog.Overlap))
	row("partitions active on two members at the same time (V1)", audit.Count(c.Findings, worklog.ActiveTwice))
	row("tokens that decreased (V2)", audit.Count(c.Findings, worklog.TokenDrop))
	row("objects not processed at their last version (V3)", audit.Count(c.Findings, worklog.Loss))
	row("findings in the history of etcd (V5)", len(r.History.Findings))
	row("reconciles on an older version than the previous owner's", older)
	row("reconciles", c.Reconciles)
	for _, e := range r.exercised() {
		row(e.what+" (V6)", e.n)
	}
	row("processes that exited on their own", r.Exits)
	row("Lease versions in the history of etcd", r.LeaseWrites)
	row("from the last fault until the replicas converged", r.Settled.Round(100*time.Millisecond))
	next()
	if len(r.Breaches) == 0 {
		fmt.Fprintln(&b, "PASSED")
	} else {
		fmt.Fprintf(&b, "FAILED: %d breaches\n", len(r.Breaches))
	}
	for n, breach := range r.Breaches {
		if n == 20 {
			fmt.Fprintf(&b, "and %d more\n", len(r.Breaches)-n)
			break
		}
		fmt.Fprintf(&b, "%s: %s\n", breach.Check, breach.What)
	}
	return b.String()
}

var causeTexts = map[worklog.Cause]string{
	worklog.Released: "released the partition",
	worklog.Left:     "left, or lost its Lease",
	worklog.Fenced:   "was fenced",
	worklog.Died:     "was killed",
	worklog.Paused:   "was paused",
}

func short(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return d.Round(time.Millisecond).String()
}

// write writes the three files.
func (r *Result) write(dir string) error {
	var page bytes.Buffer
	run := timeline.Run{
		Title:  fmt.Sprintf("make chaos, seed %d", r.Options.Seed),
		Report: r.Records, Partitions: r.Options.Partitions,
	}
	for _, i := range r.Injections {
		run.Faults = append(run.Faults, timeline.Fault{Name: i.Kind, Target: i.Target, From: i.From, To: i.To, Note: i.Note})
	}
	if err := timeline.Write(&page, run); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{TextFile: []byte(r.Text()), TimelineFile: page.Bytes(), JSONFile: data} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// times has the times without an owner that one kind of fault caused, sorted.
type times struct {
	all []time.Duration
	// alone has those during which no other fault was active on either of the two
	// replicas, or on the servers.
	alone []time.Duration
}

// unowned groups the times in which a partition had no owner by the fault that was active
// on the previous owner, or otherwise on all; "" for none.
func (r *Result) unowned() map[string]times {
	byKind := map[string]times{}
	for _, g := range r.Records.Gaps {
		causes := r.faultsOn(g)
		kind := ""
		if len(causes) > 0 {
			kind = causes[0].Kind
		}
		t := byKind[kind]
		t.all = append(t.all, g.Duration())
		if len(causes) <= 1 {
			t.alone = append(t.alone, g.Duration())
		}
		byKind[kind] = t
	}
	for _, t := range byKind {
		slices.Sort(t.all)
		slices.Sort(t.alone)
	}
	return byKind
}

// faultsOn returns the faults that may have caused a gap, the most likely one first: on
// the previous owner, then on the servers or the fleet, then on the next owner or begun
// later. A fault has effects until another member has taken over the partitions of the
// member that it stopped.
func (r *Result) faultsOn(g worklog.Gap) []Injection {
	after := int64(r.Options.LeaseDuration + 2*time.Second)
	var causes [3][]Injection
	for _, i := range slices.Backward(r.Injections) {
		before, next := podOf(g.Before) == i.Target, podOf(g.After) == i.Target
		all := i.Target == wholeFleet || i.Target == servers
		rank := 2
		switch {
		case i.From > g.To || g.From > i.To+after || !before && !next && !all:
			continue
		case i.From > g.From:
		case before:
			rank = 0
		case all:
			rank = 1
		}
		causes[rank] = append(causes[rank], i)
	}
	return slices.Concat(causes[:]...)
}

// podOf returns the Pod of a process, which is named <pod>.<number>.
func podOf(process string) string {
	pod, _, _ := strings.Cut(process, ".")
	return pod
}

// quantile returns the smallest of the sorted times that at least the given percentage of
// them do not exceed.
func quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1]
}
