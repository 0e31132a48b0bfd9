// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
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

//go:embed report.txt
var reportText string

var reportTemplate = template.Must(template.New(TextFile).Funcs(template.FuncMap{
	"found": found, "short": short, "quantile": worklog.Quantile,
	"round": func(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) },
}).Parse(reportText))

// Text returns the table of faults and figures.
func (r *Result) Text() string {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if err := reportTemplate.Execute(table, r); err != nil {
		panic(err) // the template does not fit the types
	}
	_ = table.Flush() // writes to a buffer do not fail
	return b.String()
}

// OlderVersions counts the reconciles that started with an older version of their object than
// another process had worked on before, because their cache lagged. This is harmless as long as
// writes are conditional.
func (r *Result) OlderVersions() (n int) {
	for _, d := range r.Records.VersionDrops {
		if d.First != d.Second {
			n++
		}
	}
	return n
}

// found counts the findings with a number in the documentation of package worklog.
func found(all []audit.Finding, number string) (n int) {
	for _, f := range all {
		if strings.HasPrefix(f.Kind, number+" ") {
			n++
		}
	}
	return n
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
	Kind     string
	Injected int
	All      []time.Duration
	// Alone has those during which no other fault was active on either of the two
	// replicas, or on the servers.
	Alone []time.Duration
}

// Unowned groups the times in which a partition had no owner by the fault that was active
// on the previous owner, or otherwise on all; the last ones had none.
func (r *Result) Unowned() (all []*times) {
	none := &times{Kind: "(none)"}
	byKind := map[string]*times{}
	of := func(kind string) *times {
		if byKind[kind] == nil {
			byKind[kind] = &times{Kind: kind, Injected: r.injected()[kind]}
		}
		return byKind[kind]
	}
	for kind := range r.injected() {
		of(kind)
	}
	for _, g := range r.Records.Gaps {
		causes := r.faultsOn(g)
		t := none
		if len(causes) > 0 {
			t = of(causes[0].Kind)
		}
		t.All = append(t.All, g.Duration())
		if len(causes) <= 1 {
			t.Alone = append(t.Alone, g.Duration())
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		all = append(all, byKind[kind])
	}
	all = append(all, none)
	for _, t := range all {
		slices.Sort(t.All)
		slices.Sort(t.Alone)
	}
	return all
}

// faultsOn returns the faults that may have caused a gap, the most likely one first: on
// the previous owner, then on the servers or the fleet, then on the next owner or begun
// later. A fault has effects until another member has taken over the partitions of the
// member that it stopped.
func (r *Result) faultsOn(g worklog.Gap) []*Injection {
	after := int64(r.Options.LeaseDuration + 2*time.Second)
	var causes [3][]*Injection
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
