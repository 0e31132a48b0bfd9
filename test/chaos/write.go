// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/timeline"
)

// The files that a run writes into its directory.
const (
	TextFile     = "report.txt"
	JSONFile     = "report.json"
	TimelineFile = "timeline.html"
)

// WriteText writes the table of faults and figures.
func (r *Result) WriteText(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "seed %d: %d faults in %v on %d replicas, %d objects, %d changes; lease duration %v; %d processes\n\n",
		r.Options.Seed, len(r.Injections), r.Faulty.Round(time.Second), r.Options.Replicas, r.Options.Objects, r.Changes, r.Options.LeaseDuration, len(r.processes))
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FAULT\tTIMES\tMOVES\tNO OWNER P50\tP99\tMAX\tMAX WITH OTHER FAULTS")
	unowned := r.unowned()
	injected := map[string]int{}
	for _, i := range r.Injections {
		if !i.Failed {
			injected[i.Kind]++
		}
	}
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
	_ = table.Flush() // writes to a buffer do not fail

	fmt.Fprintln(&b)
	table = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PREVIOUS OWNER\tMOVES\tNO OWNER P50\tP99\tMAX")
	for _, cause := range slices.Sorted(maps.Keys(r.Records.Unowned)) {
		d := r.Records.Unowned[cause]
		fmt.Fprintf(table, "%s\t%d\t%v\t%v\t%v\n", causeText(cause), d.Count, short(d.P50), short(d.P99), short(d.Max))
	}
	_ = table.Flush()

	c := r.Records
	fmt.Fprintln(&b)
	table = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(what string, value any) { fmt.Fprintf(table, "%v\t%s\n", value, what) }
	row("objects that two replicas worked on at the same time (V1)", len(c.Overlaps))
	row("partitions active on two members at the same time (V1)", len(c.ActiveTwice))
	row("tokens that decreased (V2)", len(c.TokenDrops))
	row("objects not processed at their last version (V3)", len(c.Losses))
	row("findings in the history of etcd (V5)", len(r.History.Findings))
	row("reconciles on an older version than the previous owner's", r.older())
	row("reconciles", c.Reconciles)
	row("partition handovers (V6)", c.Handovers)
	row("evictions (V6)", r.Evictions)
	row("refused evictions (V6)", r.Counted.Refused)
	row("contested claims (V6)", r.Counted.Contested)
	row("fence trips (V6)", r.Counted.Fences)
	row("Lease write conflicts (V6)", r.Counted.Conflicts)
	row("processes that exited on their own", r.Exits)
	row("Lease versions in the history of etcd", r.LeaseWrites)
	row("from the last fault until the replicas converged", r.Settled.Round(100*time.Millisecond))
	_ = table.Flush()
	if len(r.Breaches) == 0 {
		fmt.Fprintln(&b, "\nPASSED")
	} else {
		fmt.Fprintf(&b, "\nFAILED: %d breaches\n%s", len(r.Breaches), first(20, r.Breaches))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func causeText(c worklog.Cause) string {
	switch c {
	case worklog.Released:
		return "released the partition"
	case worklog.Left:
		return "left, or lost its Lease"
	case worklog.Fenced:
		return "was fenced"
	case worklog.Died:
		return "was killed"
	case worklog.Paused:
		return "was paused"
	}
	return string(c)
}

func short(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return d.Round(time.Millisecond).String()
}

// write writes the three files.
func (r *Result) write(dir string) error {
	var text, page bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		return err
	}
	run := timeline.Run{
		Title:     fmt.Sprintf("make chaos, seed %d", r.Options.Seed),
		Processes: r.processes, Report: r.Records, Partitions: r.Options.Partitions,
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
	for name, content := range map[string][]byte{TextFile: text.Bytes(), TimelineFile: page.Bytes(), JSONFile: data} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
