// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/internal/member"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// report creates what the page shows.
func (s *Sharder) report(now member.Inspection) inspect.Report {
	r := inspect.Report{
		Ring:       s.cfg.Name,
		Parameters: now.InForce.Fingerprint(), ParametersLease: now.Status.InForceLease,
		Member:   now.Holder,
		Fenced:   s.member.Published.FencedIn(now.View),
		States:   map[string]int{},
		Blockers: now.Blockers,
		InFlight: s.member.Components.Items(nil),
	}
	if err := s.ready(now.View, r.Fenced); err != nil {
		r.Problem = err.Error()
	}
	if now.Status.Serving {
		r.Waiting = now.Status.WaitsFor
	}
	if err := s.member.LastFailure(); err != nil {
		r.LastError = err.Error()
	}
	r.Warnings = now.Status.Warnings.Texts
	if now.Fence != nil {
		r.FenceIn = (now.Fence.Mono - s.member.Published.Now().Mono).Round(time.Millisecond).String()
	}
	own := inspect.MemberReport{
		Lease: s.cfg.leaseName(), Pod: s.cfg.PodName, Holder: now.Holder,
		Phase: "not joined", Self: true, Should: now.Ring.Owned(s.cfg.PodName).Len(),
	}
	switch {
	case now.Status.Serving:
		own.Phase = inspect.PhaseActive
	case now.Stopping:
		own.Phase = inspect.PhaseDraining
	}
	for p, state := range now.States {
		owner, _ := now.Ring.Owner(p)
		r.Partitions = append(r.Partitions, inspect.PartitionReport{Owner: owner, State: state.String(), Token: now.Tokens[p]})
		r.States[state.String()]++
		if state != ring.NotOwned {
			own.Claims++
		}
	}
	r.Members = append(r.Members, own)
	for _, peer := range now.Peers {
		record := peer.Lease.Record
		m := inspect.MemberReport{
			Lease: peer.Lease.Name, Pod: record.Member, Holder: record.Holder, Phase: string(record.Phase),
			Silent: peer.Silent.Round(10 * time.Millisecond).String(),
			Should: now.Ring.Owned(record.Member).Len(), Claims: record.Claims.Set.Len(),
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
	inspect.Report
	Colors  []color
	classes map[string]int // index in Colors, by Pod
}

// color contains only numbers. The template writes them into a style sheet, and
// text from a Lease must never appear there.
type color struct {
	Hue       int // degrees
	Lightness int // percent
}

func newDebugView(r inspect.Report) debugView {
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
// partitions, claims, and work in flight. With ?format=json it serves an [inspect.Report].
// It changes nothing. A page may be up to a second old, on a ring with very many partitions ten
// times as old as it takes to create it: it is created for one request at a time, and the
// requests that follow share it.
func (s *Sharder) DebugHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		ctx, cancel := context.WithTimeout(request.Context(), 2*time.Second)
		defer cancel()
		format, contentType := "html", "text/html; charset=utf-8"
		if request.URL.Query().Get("format") == "json" {
			format, contentType = "json", "application/json"
		}
		body, ok := s.page(ctx, format)
		if !ok {
			http.Error(w, "Run is not running, or its loop does not respond", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body) // it fails only if the client has disconnected
	})
}

// statusPages are the pages of the last second. Readers that ask for more than that must
// not take the time that the loop and the workers need.
type statusPages struct {
	turn   chan struct{} // capacity 1; who has sent to it owns the fields below
	until  time.Time     // when they are to be created again
	report inspect.Report
	bodies map[string][]byte // by format
}

// The pages are shown for pageAge, and for at least pageShare times as long as it took to
// create them: a page with 65536 partitions takes most of a second of a processor.
const (
	pageAge   = time.Second
	pageShare = 10
)

// created extends the time for which the pages are shown, after one that was begun at the given
// time.
func (p *statusPages) created(began time.Time) {
	now := time.Now()
	if until := now.Add(pageShare * now.Sub(began)); until.After(p.until) {
		p.until = until
	}
}

// page returns the page in a format. It returns false if the context ends before it is
// this reader's turn and the loop has responded.
func (s *Sharder) page(ctx context.Context, format string) (body []byte, ok bool) {
	p := &s.pages
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, false
	}
	if !time.Now().Before(p.until) {
		var now member.Inspection
		if !s.member.Inspect(ctx, func(i member.Inspection) { now = i }) {
			return nil, false
		}
		p.until, p.report, p.bodies = time.Now().Add(pageAge), s.report(now), map[string][]byte{}
	}
	if p.bodies[format] == nil {
		began := time.Now()
		var b bytes.Buffer
		if format == "json" {
			_ = json.NewEncoder(&b).Encode(p.report) // a buffer accepts everything
		} else {
			_ = debugPage.Execute(&b, newDebugView(p.report))
		}
		p.bodies[format] = b.Bytes()
		p.created(began)
	}
	return p.bodies[format], true
}

//go:embed debug.html
var debugHTML string

var debugPage = template.Must(template.New("debug").Parse(debugHTML))
