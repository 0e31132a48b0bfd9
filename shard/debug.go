// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Report is what [Sharder.DebugHandler] shows.
type Report struct {
	Ring       string         `json:"ring"`
	Parameters string         `json:"parameters"` // fingerprint of the parameters in force
	Member     string         `json:"member"`
	Problem    string         `json:"problem,omitempty"` // why this member is not ready
	Fenced     bool           `json:"fenced"`
	FenceIn    string         `json:"fenceIn,omitempty"`
	States     map[string]int `json:"states"`   // partitions by state
	Blockers   map[string]int `json:"blockers"` // by holder: partitions that it claims and this member wants
	InFlight   []string       `json:"inFlight"` // items, and how long work on them has been running
	Members    []MemberReport `json:"members"`
	Partitions []PartReport   `json:"partitions"`
}

// MemberReport is one Lease of the ring.
type MemberReport struct {
	Lease  string `json:"lease"`
	Pod    string `json:"pod"`    // the name that PartReport.Owner uses
	Holder string `json:"holder"` // "" if void
	Phase  string `json:"phase"`
	Self   bool   `json:"self"`
	Silent string `json:"silent,omitempty"` // time since the last change of the Lease was seen
	Should int    `json:"should"`           // partitions that the ring assigns to it
	Claims int    `json:"claims"`           // partitions that it claims; -1 for everything
}

// PartReport is one partition.
type PartReport struct {
	Owner string `json:"owner"` // the member that the ring assigns it to
	State string `json:"state"` // on this member
	Token string `json:"token,omitempty"`
}

// report creates a Report. It runs on the loop's goroutine.
func (l *loop) report() Report {
	s := l.s
	now := s.snapshot.Load()
	r := Report{
		Ring:       s.cfg.Name,
		Parameters: now.ring.Parameters().Fingerprint(),
		Member:     l.holder,
		Fenced:     s.Fenced(),
		States:     map[string]int{},
		Blockers:   l.machine.Blockers(),
		InFlight:   l.s.items(everything),
	}
	if err := s.Ready(); err != nil {
		r.Problem = err.Error()
	}
	if deadline := s.deadline.Load(); deadline != nil {
		r.FenceIn = (deadline.Mono - s.now().Mono).Round(time.Millisecond).String()
	}
	own := MemberReport{
		Lease: lease.Name(s.cfg.LeasePrefix, s.cfg.PodName), Pod: s.cfg.PodName, Holder: l.holder,
		Phase: "not joined", Self: true, Should: now.ring.Owned(s.cfg.PodName).Len(),
	}
	switch {
	case l.machine.Serving():
		own.Phase = "active"
	case l.stopping:
		own.Phase = "draining"
	}
	for p, state := range now.states {
		owner, _ := now.ring.Owner(p)
		r.Partitions = append(r.Partitions, PartReport{Owner: owner, State: state.String(), Token: now.tokens[p]})
		r.States[state.String()]++
		if state != ring.NotOwned {
			own.Claims++
		}
	}
	r.Members = append(r.Members, own)
	for _, peer := range l.machine.Peers() {
		record := peer.Lease.Record
		m := MemberReport{
			Lease: peer.Lease.Name, Pod: record.Member, Holder: record.Holder, Phase: string(record.Phase),
			Silent: peer.Silent.Round(10 * time.Millisecond).String(),
			Should: now.ring.Owned(record.Member).Len(), Claims: record.Claims.Set.Len(),
		}
		if record.Claims.Everything {
			m.Claims = -1
		}
		if record.Void() {
			m.Phase, m.Should = "void", 0
		}
		r.Members = append(r.Members, m)
	}
	return r
}

// debugView is the data of the page: a report, and the colors of its members.
type debugView struct {
	Report
	Colors  []color
	classes map[string]int // index in Colors, by Pod
}

// color contains only numbers. The template writes them into a style sheet, and
// text from a Lease must never appear there.
type color struct {
	Hue       int // degrees
	Lightness int // percent
}

func newDebugView(r Report) debugView {
	var pods []string
	for _, m := range r.Members {
		pods = append(pods, m.Pod)
	}
	for _, p := range r.Partitions {
		pods = append(pods, p.Owner)
	}
	slices.Sort(pods)
	pods = slices.Compact(pods)
	pods = slices.DeleteFunc(pods, func(pod string) bool { return pod == "" })
	v := debugView{Report: r, Colors: colors(pods), classes: map[string]int{}}
	for n, pod := range pods {
		v.classes[pod] = n
	}
	return v
}

// Class returns the number of the class with a Pod's color, -1 if it has none.
func (v debugView) Class(pod string) int {
	if n, ok := v.classes[pod]; ok {
		return n
	}
	return -1
}

// colors gives each Pod a color of its own, as different from the others as their number
// allows. The color depends only on the names, so that all members show a Pod in the same
// color. A hash selects it, so that most Pods keep their color when other Pods start or
// stop. With more than about 500 Pods, colors repeat.
func colors(pods []string) []color {
	const lightest, step, shades = 60, 12, 3 // neighbors in hue differ in lightness too
	slots := 12
	for slots < 2*len(pods) {
		slots *= 2
	}
	taken := make([]bool, slots)
	all := make([]color, len(pods))
	for n, pod := range pods {
		gap := slots / (2 * len(pods)) // a slot with this distance always exists
		slot := int(xxh3.HashString(pod) % uint64(slots))
		for crowded(taken, slot, gap) {
			slot = (slot + 1) % slots
		}
		taken[slot] = true
		all[n] = color{Hue: 360 * slot / slots, Lightness: lightest - step*(slot%shades)}
	}
	return all
}

// crowded reports whether a slot is less than gap away from one that is taken, on a circle.
func crowded(taken []bool, slot, gap int) bool {
	for d := 1 - gap; d < gap; d++ {
		if taken[(slot+d+len(taken))%len(taken)] {
			return true
		}
	}
	return false
}

// DebugHandler serves a page that shows the ring as this member sees it: members,
// partitions, claims, and work in flight. With ?format=json it serves a [Report].
// It changes nothing.
func (s *Sharder) DebugHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		ctx, cancel := context.WithTimeout(request.Context(), 2*time.Second)
		defer cancel()
		var r Report
		if !s.inspect(ctx, func(l *loop) { r = l.report() }) {
			http.Error(w, "Run is not running", http.StatusServiceUnavailable)
			return
		}
		if request.URL.Query().Get("format") == "json" {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(r) // it fails only if the client has disconnected
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = debugPage.Execute(w, newDebugView(r))
	})
}

var debugPage = template.Must(template.New("debug").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>ring {{.Ring}}</title>
<style>
:root{color-scheme:light dark;--text:#222;--line:#ddd;--none:#ccc;--bad:#b00020}
@media (prefers-color-scheme:dark){:root{--text:#ddd;--line:#444;--none:#555;--bad:#ff8a80}}
body{font:14px system-ui,sans-serif;margin:2em;max-width:80em;color:var(--text)}
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:.25em .8em;text-align:left;border-bottom:1px solid var(--line)}
td,b,li{overflow-wrap:anywhere;unicode-bidi:isolate}
.n{text-align:right;font-variant-numeric:tabular-nums}.bad{color:var(--bad);font-weight:600}
.dot{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.4em;background:var(--none)}
.map{display:flex;flex-wrap:wrap;gap:3px}.map i{width:12px;height:12px;border-radius:2px;opacity:.6;background:var(--none)}
.map i.active{opacity:1;outline:1px solid var(--text)}.map i.pending{opacity:1;outline:2px dashed var(--bad)}
{{range $n, $c := .Colors}}.dot.c{{$n}},.map i.c{{$n}}{background:hsl({{$c.Hue}} 65% {{$c.Lightness}}%)}
{{end}}</style></head><body>
<h1>Ring {{.Ring}}</h1>
<p>This member: <b>{{.Member}}</b>{{if and .FenceIn (not .Fenced)}}, fence in {{.FenceIn}} unless it renews{{end}}. Parameters in force: {{.Parameters}}. <a href="?format=json">JSON</a></p>
{{if .Problem}}<p class="bad">Not ready: {{.Problem}}</p>{{end}}
{{if .Fenced}}<p class="bad">Fenced: this member does no work.</p>{{end}}
<h2>Members</h2>
<table><tr><th>Lease</th><th>Holder</th><th>Phase</th><th>Last change seen</th><th class="n">Assigned partitions</th><th class="n">Claimed</th></tr>
{{range .Members}}<tr><td><span class="dot c{{$.Class .Pod}}"></span>{{.Lease}}{{if .Self}} (this one){{end}}</td><td>{{.Holder}}</td><td>{{.Phase}}</td><td>{{.Silent}}</td><td class="n">{{.Should}}</td><td class="n">{{if lt .Claims 0}}everything{{else}}{{.Claims}}{{end}}</td></tr>
{{end}}</table>
{{if .Blockers}}<h2>Waiting for</h2><table><tr><th>Holder</th><th class="n">Partitions that it still claims</th></tr>{{range $holder, $n := .Blockers}}<tr><td>{{$holder}}</td><td class="n">{{$n}}</td></tr>{{end}}</table>{{end}}
<h2>Partitions</h2>
<p>Color: owner. Solid frame: active here ({{index .States "active"}}). Dashed frame: claimed here and not active ({{index .States "pending"}}).</p>
<div class="map">{{range $p, $v := .Partitions}}<i class="{{$v.State}} c{{$.Class $v.Owner}}" title="{{$p}}: {{$v.Owner}}, here {{$v.State}}"></i>{{end}}</div>
{{if .InFlight}}<h2>In flight</h2><ul>{{range .InFlight}}<li>{{.}}</li>{{end}}</ul>{{end}}
</body></html>
`))
