// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// link is the network between a process and the API server.
type link struct {
	slow            time.Duration // each way takes up to this
	trip            time.Duration // how long a request and its response take together, 0: as long as slow says
	loseWrites      float64       // share of the writes whose responses are lost, although reads work
	lose            float64       // share of the requests that never arrive
	loseResponse    float64       // share of the responses that are lost
	late            float64       // share of the requests that are delayed by seconds
	reset           float64       // share for which the client gets an error while the request is still in flight
	out, in         bool          // cut: requests, or responses, are lost
	disturbedWrites int           // so many writes lose their response, or arrive late
}

// The limits that kubernetes.NewForConfig sets.
const (
	limiterQPS   = 5
	limiterBurst = 10
)

// limiter is client-go's token bucket: requests get tokens in the order in which they are made,
// and a request that would have to wait longer than its timeout fails at once.
type limiter struct {
	used float64 // tokens in use; those above limiterBurst are reserved
	at   time.Duration
}

func (l *limiter) wait(now, timeout time.Duration) (wait time.Duration, ok bool) {
	l.used = max(0, l.used-(now-l.at).Seconds()*limiterQPS)
	l.at = now
	wait = time.Duration((l.used + 1 - limiterBurst) / limiterQPS * float64(time.Second))
	if wait > timeout {
		return 0, false
	}
	l.used++
	return max(wait, 0), true
}

func goodLink() link { return link{slow: 4 * time.Millisecond} }

// newLink returns the link of a process that has no fault of its own.
func (w *sim) newLink() link {
	l := goodLink()
	l.trip = w.profile.trip
	return l
}

func (l *link) delay(w *sim) time.Duration {
	if l.trip > 0 {
		return l.trip / 2
	}
	return w.between(200*time.Microsecond, l.slow)
}

// refused is the response to a request that the server certainly does not carry out, instead
// of one with an unknown outcome.
func refused(e claim.Event, retryAfter time.Duration) claim.Event {
	switch e := e.(type) {
	case claim.GetResult:
		e.Outcome, e.RetryAfter = claim.Refused, retryAfter
		return e
	case claim.WriteResult:
		e.Outcome, e.RetryAfter = claim.Refused, retryAfter
		return e
	case claim.DeleteResult:
		e.Outcome, e.RetryAfter = claim.Refused, retryAfter
		return e
	case claim.EvictResult:
		e.Outcome, e.RetryAfter = claim.Refused, retryAfter
		return e
	case claim.ListResult:
		e.Outcome, e.RetryAfter = claim.Refused, retryAfter
		return e
	}
	return e
}

// call is a request in flight; it is answered once.
type call struct {
	p       *process
	machine *claim.Machine
	done    bool
}

// request sends a request to the server and makes sure that the machine gets exactly one
// response: that of serve, or unknown. The client gives up after the timeout; the request may
// still be carried out, then or later.
func (p *process) request(timeout time.Duration, write bool, serve func() claim.Event, unknown claim.Event) {
	w, l := p.w, &p.link
	c := &call{p: p, machine: p.machine}
	w.counts.Requests++
	p.countRequest()
	w.after(p.clock.real(timeout), func() { c.answer(unknown) })

	delay := l.delay(w)
	if w.profile.limited {
		wait, ok := p.limiter.wait(w.now, timeout)
		if !ok {
			w.counts.Refused++
			w.after(0, func() { c.answer(unknown) })
			return
		}
		delay += wait
	}
	losesResponse := w.chance(l.loseResponse) || write && w.chance(l.loseWrites)
	held := w.chance(l.late)
	if write && l.disturbedWrites > 0 {
		l.disturbedWrites--
		if w.chance(0.5) {
			losesResponse = true
		} else {
			held = true
		}
	}
	if held {
		delay = w.between(timeout/2, 8*timeout)
		if w.chance(0.7) {
			w.after(w.between(delay/8, delay), func() { c.answer(unknown) }) // the client gives up before the timeout
		}
	}
	if w.chance(l.reset) {
		w.after(w.between(0, 2*delay), func() { c.answer(unknown) })
	}
	if l.out || w.chance(l.lose) {
		return
	}
	w.after(delay, func() {
		s := w.server
		switch {
		case s.down && s.refuses, !s.down && w.chance(s.storm):
			response := unknown
			if w.chance(0.5) {
				w.counts.Rejected++
				response = refused(unknown, w.between(0, 3*time.Second))
			}
			w.after(l.delay(w), func() { c.answer(response) })
			return
		case s.down:
			return
		}
		if write && c.done {
			w.counts.Zombies++
			w.logf("%s: a request that the client gave up arrives", p.name)
		}
		event := serve()
		if losesResponse || l.in {
			return
		}
		w.after(l.delay(w), func() {
			if !l.in {
				c.answer(event)
			}
		})
	})
}

// answer passes the first of the possible responses to the machine that sent the request.
func (c *call) answer(e claim.Event) {
	if c.done {
		return
	}
	p := c.p
	if p.paused {
		// Both the response and the timeout may be pending when the process resumes.
		p.asleep.answers = append(p.asleep.answers, func() { c.answer(e) })
		return
	}
	c.done = true
	if !p.alive || p.machine != c.machine {
		return
	}
	p.step(e)
	if p.machine == c.machine && !p.paused && p.w.chance(0.01) {
		p.step(e) // a duplicate response must have no effect
	}
}
