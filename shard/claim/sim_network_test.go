// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import "time"

// link is the network between a process and the API server.
type link struct {
	slow     time.Duration // each way takes up to this
	lose     float64       // share of the requests that never arrive
	unheard  float64       // share of the answers that get lost
	late     float64       // share of the requests that are held back for seconds
	reset    float64       // share for which the client hears of an error while the request goes on
	out, in  bool          // cut: requests, or answers, don't get through
	mischief int           // the next writes have their answers lost, or come late
}

// What kubernetes.NewForConfig sets.
const (
	limiterQPS   = 5
	limiterBurst = 10
)

// limiter is client-go's token bucket: requests get their tokens in the order in which
// they ask, and one that would wait for longer than it has time for fails at once.
type limiter struct {
	used float64 // tokens that are not there; above limiterBurst: promised
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

func (l *link) delay(w *sim) time.Duration { return w.between(200*time.Microsecond, l.slow) }

// call is a request under way, answered once.
type call struct {
	p       *process
	machine *Machine
	done    bool
}

// request sends something to the server and sees to it that the machine gets
// exactly one answer: that of serve, or unknown. The client gives up after the
// timeout; the request may be carried out all the same, then or later.
func (p *process) request(timeout time.Duration, write bool, serve func() Event, unknown Event) {
	w, l := p.w, &p.link
	c := &call{p: p, machine: p.machine}
	w.tally.Requests++
	p.countRequest()
	w.after(p.clock.real(timeout), func() { c.answer(unknown) })

	delay := l.delay(w)
	if w.profile.limited {
		wait, ok := p.limiter.wait(w.now, timeout)
		if !ok {
			w.tally.Refused++
			w.after(0, func() { c.answer(unknown) })
			return
		}
		delay += wait
	}
	losesAnswer := w.chance(l.unheard)
	held := w.chance(l.late)
	if write && l.mischief > 0 {
		l.mischief--
		if w.chance(0.5) {
			losesAnswer = true
		} else {
			held = true
		}
	}
	if held {
		delay = w.between(timeout/2, 8*timeout)
		if w.chance(0.7) {
			w.after(w.between(delay/8, delay), func() { c.answer(unknown) }) // the client gives up earlier than it must
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
			w.after(l.delay(w), func() { c.answer(unknown) })
			return
		case s.down:
			return
		}
		if write && c.done {
			w.tally.Zombies++
			w.logf("%s: a request that was given up arrives", p.name)
		}
		event := serve()
		if losesAnswer || l.in {
			return
		}
		w.after(l.delay(w), func() {
			if !l.in {
				c.answer(event)
			}
		})
	})
}

// answer gives the first of the possible answers to the machine that asked.
func (c *call) answer(e Event) {
	if c.done {
		return
	}
	p := c.p
	if p.paused {
		// Both the answer and the timeout may be there when the process wakes up.
		p.asleep.answers = append(p.asleep.answers, func() { c.answer(e) })
		return
	}
	c.done = true
	if !p.alive || p.machine != c.machine {
		return
	}
	p.step(e)
	if p.machine == c.machine && !p.paused && p.w.chance(0.01) {
		p.step(e) // an answer that comes twice must not hurt
	}
}
