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

	"github.com/tom-ludwig/operator-scaling/test/checker"
	"github.com/tom-ludwig/operator-scaling/test/timeline"
)

// The files of a run in its folder.
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
	fmt.Fprintln(table, "FAULT\tTIMES\tMOVES\tUNOWNED P50\tP99\tMAX\tMAX WITH OTHER FAULTS")
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
	_ = table.Flush() // a buffer takes everything

	fmt.Fprintln(&b)
	table = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "THE FORMER OWNER\tMOVES\tUNOWNED P50\tP99\tMAX")
	for _, cause := range slices.Sorted(maps.Keys(r.Records.Unowned)) {
		d := r.Records.Unowned[cause]
		fmt.Fprintf(table, "%s\t%d\t%v\t%v\t%v\n", causeText(cause), d.Count, short(d.P50), short(d.P99), short(d.Max))
	}
	_ = table.Flush()

	c := r.Records
	fmt.Fprintln(&b)
	table = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(what string, value any) { fmt.Fprintf(table, "%v\t%s\n", value, what) }
	row("objects worked on by two at once (V1)", len(c.Overlaps))
	row("partitions active at two at once (V1)", len(c.ActiveTwice))
	row("tokens that went down (V2)", len(c.TokenDrops))
	row("objects not worked on at their last version (V3)", len(c.Losses))
	row("findings in the history of etcd (V5)", len(r.History.Findings))
	row("reconciles on an older version than the last owner's", r.older())
	row("reconciles", c.Reconciles)
	row("handovers of partitions (V6)", c.Handovers)
	row("evictions (V6)", r.Evictions)
	row("refused evictions (V6)", r.Counted.Refused)
	row("contested claims (V6)", r.Counted.Contested)
	row("fence trips (V6)", r.Counted.Fences)
	row("conflicts of Lease writes (V6)", r.Counted.Conflicts)
	row("processes that ended by themselves", r.Exits)
	row("Lease versions that etcd has seen", r.LeaseWrites)
	row("until all was as it should be, after the last fault", r.Settled.Round(100*time.Millisecond))
	_ = table.Flush()
	if len(r.Breaches) == 0 {
		fmt.Fprintln(&b, "\nPASSED")
	} else {
		fmt.Fprintf(&b, "\nFAILED: %d breaches\n%s", len(r.Breaches), first(20, r.Breaches))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func causeText(c checker.Cause) string {
	switch c {
	case checker.Released:
		return "has released"
	case checker.Left:
		return "has left, or lost its Lease"
	case checker.Fenced:
		return "was fenced"
	case checker.Died:
		return "was killed"
	case checker.Paused:
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
	var text, picture bytes.Buffer
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
	if err := timeline.Write(&picture, run); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{TextFile: text.Bytes(), TimelineFile: picture.Bytes(), JSONFile: data} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
