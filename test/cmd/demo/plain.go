// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// plain is an output that is no terminal: one line after the other, for logs.
type plain struct {
	mu     sync.Mutex
	out    io.Writer
	look   look
	task   string
	began  time.Time // of the progress
	told   time.Time // when it was last shown
	drawn  int       // second of the last view that was shown
	closed bool
}

// progressEvery is the time between two lines of one progress.
const progressEvery = 10 * time.Second

func newPlain(out io.Writer, look look) *plain { return &plain{out: out, look: look, drawn: -1} }

func (p *plain) Say(lines ...line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range lines {
		_, _ = io.WriteString(p.out, strings.TrimRight(l.render(p.look.color), " ")+"\n") // nobody is left to be told
	}
}

func (p *plain) Progress(task string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if task == "" {
		p.task = ""
		return
	}
	if p.task == "" {
		p.began = now
		p.told = time.Time{}
	}
	p.task = task
	if now.Sub(p.told) < progressEvery {
		return
	}
	p.told = now
	fmt.Fprintf(p.out, "%s %s\n", clock(now.Sub(p.began)), task)
}

func (p *plain) Event(e event) { p.Say(e.line(p.look)) }

func (p *plain) Draw(v view) {
	p.mu.Lock()
	defer p.mu.Unlock()
	second := int(v.elapsed.Seconds())
	if p.closed || second == p.drawn || len(v.members) == 0 {
		return
	}
	p.drawn = second
	rate := 0.0
	var owned []string
	for _, m := range v.members {
		rate += m.rate
		if m.phase.gone() {
			owned = append(owned, string(m.phase))
			continue
		}
		owned = append(owned, fmt.Sprint(m.owned))
	}
	fmt.Fprintf(p.out, "%s   owned %s, without an owner %d, %.0f reconciles/s\n", clock(v.elapsed), strings.Join(owned, " "), v.unowned, rate)
}

func (p *plain) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

func (p *plain) Look() look { return p.look }
