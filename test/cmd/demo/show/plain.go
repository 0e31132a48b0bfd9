// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/terminal"
)

// plain is an output that is not a terminal: one line after the other, for logs.
type plain struct {
	mu     sync.Mutex
	out    io.Writer
	look   look
	task   *terminal.Task // what Progress shows
	drawn  int            // second of the last view that was shown
	closed bool
}

func newPlain(out io.Writer, look look) *plain {
	return &plain{out: out, look: look, task: terminal.NewTask(out, look, nil), drawn: -1}
}

func (p *plain) Say(lines ...line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range lines {
		_, _ = io.WriteString(p.out, strings.TrimRight(l.render(p.look.Color), " ")+"\n") // there is no other place to report an error
	}
}

func (p *plain) Progress(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text == "" {
		p.task.End()
		return
	}
	p.task.Show(text)
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
	fmt.Fprintf(p.out, "%s   owned %s, without an owner %d, %.0f reconciles/s\n", terminal.Clock(v.elapsed), strings.Join(owned, " "), v.unowned, rate)
}

func (p *plain) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

func (p *plain) Look() look { return p.look }
