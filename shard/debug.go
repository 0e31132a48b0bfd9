// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"html/template"
	"net/http"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Report is what [Sharder.DebugHandler] shows.
type Report struct {
	Ring       string         `json:"ring"`
	Parameters string         `json:"parameters"` // fingerprint of those in force
	Member     string         `json:"member"`
	Problem    string         `json:"problem,omitempty"` // why this member is not ready
	Fenced     bool           `json:"fenced"`
	FenceIn    string         `json:"fenceIn,omitempty"`
	States     map[string]int `json:"states"`   // partitions by state
	Blockers   map[string]int `json:"blockers"` // who claims what this member wants: holder -> partitions
	InFlight   []string       `json:"inFlight"` // items and how long they have been worked on
	Members    []MemberReport `json:"members"`
	Partitions []PartReport   `json:"partitions"`
}

// MemberReport is one Lease of the ring.
type MemberReport struct {
	Lease  string `json:"lease"`
	Holder string `json:"holder"` // "" if void
	Phase  string `json:"phase"`
	Self   bool   `json:"self"`
	Silent string `json:"silent,omitempty"` // since its Lease was seen to change
	Should int    `json:"should"`           // partitions that the ring gives it
	Claims int    `json:"claims"`           // partitions that it claims; -1 for everything
	Color  string `json:"-"`
}

// PartReport is one partition.
type PartReport struct {
	Owner string `json:"owner"` // by the ring
	State string `json:"state"` // for this member
	Token string `json:"token,omitempty"`
	Color string `json:"-"`
}

// report is made on the loop's goroutine.
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
		InFlight:   l.items(everything),
	}
	if err := s.Ready(); err != nil {
		r.Problem = err.Error()
	}
	if deadline := s.deadline.Load(); deadline != nil {
		r.FenceIn = (deadline.Mono - s.now().Mono).Round(time.Millisecond).String()
	}
	own := MemberReport{Lease: s.cfg.LeasePrefix + s.cfg.PodName, Holder: l.holder, Phase: "not joined", Self: true, Should: now.ring.Owned(s.cfg.PodName).Len(), Color: color(s.cfg.PodName)}
	if l.machine.Serving() {
		own.Phase = "active"
	}
	for p, state := range now.states {
		owner, _ := now.ring.Owner(p)
		r.Partitions = append(r.Partitions, PartReport{Owner: owner, State: state.String(), Token: now.tokens[p], Color: color(owner)})
		r.States[state.String()]++
		if state != ring.Foreign {
			own.Claims++
		}
	}
	r.Members = append(r.Members, own)
	for _, peer := range l.machine.Peers() {
		record := peer.Lease.Record
		m := MemberReport{
			Lease: peer.Lease.Name, Holder: record.Holder, Phase: string(record.Phase),
			Silent: peer.Silent.Round(10 * time.Millisecond).String(),
			Should: now.ring.Owned(record.Member).Len(), Claims: record.Claims.Set.Len(), Color: color(record.Member),
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

// color gives each member a hue of its own that stays the same on every page.
func color(member string) string {
	if member == "" {
		return "#ddd"
	}
	h := fnv.New32a()
	h.Write([]byte(member))
	return fmt.Sprintf("hsl(%d 65%% 55%%)", h.Sum32()%360)
}

// DebugHandler serves a page that shows the ring as this member sees it: members,
// partitions, claims, and work in flight. With ?format=json it serves a [Report].
// It only reads.
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
			_ = json.NewEncoder(w).Encode(r) // the client has gone; nobody is left to be told
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = debugPage.Execute(w, r)
	})
}

var debugPage = template.Must(template.New("debug").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>ring {{.Ring}}</title>
<style>
body{font:14px system-ui,sans-serif;margin:2em;max-width:70em;color:#222}
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:.25em .8em;text-align:left;border-bottom:1px solid #ddd}
.n{text-align:right;font-variant-numeric:tabular-nums}.bad{color:#b00020;font-weight:600}
.dot{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.4em}
.map{display:flex;flex-wrap:wrap;gap:2px}.map i{width:12px;height:12px;border-radius:2px;opacity:.35}
.map i.active{opacity:1;outline:1px solid #222}.map i.pending{opacity:1;outline:2px dashed #b00020}
</style></head><body>
<h1>Ring {{.Ring}}</h1>
<p>This member: <b>{{.Member}}</b>{{if .FenceIn}}, fence in {{.FenceIn}} unless it renews{{end}}. Parameters in force: {{.Parameters}}. <a href="?format=json">JSON</a></p>
{{if .Problem}}<p class="bad">Not ready: {{.Problem}}</p>{{end}}
{{if .Fenced}}<p class="bad">Fenced: nothing is worked on.</p>{{end}}
<h2>Members</h2>
<table><tr><th>Lease</th><th>Holder</th><th>Phase</th><th>Last change seen</th><th class="n">Partitions by the ring</th><th class="n">Claimed</th></tr>
{{range .Members}}<tr><td><span class="dot" style="background:{{.Color}}"></span>{{.Lease}}{{if .Self}} (this one){{end}}</td><td>{{.Holder}}</td><td>{{.Phase}}</td><td>{{.Silent}}</td><td class="n">{{.Should}}</td><td class="n">{{if lt .Claims 0}}everything{{else}}{{.Claims}}{{end}}</td></tr>
{{end}}</table>
{{if .Blockers}}<h2>Waiting for</h2><table><tr><th>Holder</th><th class="n">Partitions that it still claims</th></tr>{{range $holder, $n := .Blockers}}<tr><td>{{$holder}}</td><td class="n">{{$n}}</td></tr>{{end}}</table>{{end}}
<h2>Partitions</h2>
<p>Colour: owner by the ring. Framed: active here ({{index .States "active"}}). Dashed: claimed here and not active ({{index .States "pending"}}).</p>
<div class="map">{{range $p, $v := .Partitions}}<i class="{{$v.State}}" style="background:{{$v.Color}}" title="{{$p}}: {{$v.Owner}}, here {{$v.State}}"></i>{{end}}</div>
{{if .InFlight}}<h2>In flight</h2><ul>{{range .InFlight}}<li>{{.}}</li>{{end}}</ul>{{end}}
</body></html>
`))
