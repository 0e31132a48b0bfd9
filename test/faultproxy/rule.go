// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Action is what a [Rule] does to a request.
type Action uint8

const (
	// Pass forwards. It is the rule of all classes at first.
	Pass Action = iota
	// Cut resets the connections of what is under way and of each new request,
	// which does not reach the server.
	Cut
	// Stall lets nothing pass. New requests hang and do not reach the server;
	// answers that are under way do not come; running watches stay open and
	// silent. When the rule ends all of them are reset, unless it says Late.
	Stall
	// Delay forwards a request after Rule.Delay, and what comes through a watch after
	// as long, together with what comes meanwhile.
	// Requests that were delayed wait for their time even if the rule ends.
	Delay
	// DropAnswer forwards a request, and resets the connection when the server has
	// answered. It applies to what is under way and not yet answered; a watch is
	// answered as soon as it has begun, so running ones go on.
	DropAnswer
	// Fail answers with Rule.Status. What is under way goes on: use [Gateway.Cut]
	// to make watches come again.
	Fail
)

var actionNames = [...]string{"pass", "cut", "stall", "delay", "drop answer", "fail"}

// String returns the action in words.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// Rule says what happens to the requests of a class. The zero value lets them pass.
type Rule struct {
	Action Action
	// Late applies to Stall and Delay. Of a stall: when the rule ends, requests
	// that it has held are forwarded and events delivered. Of both: a request
	// (not a watch) is carried out even if its client has given up.
	Late bool
	// Delay is required by the action of that name.
	Delay time.Duration
	// Hang applies to DropAnswer: the connection stays open and silent until the
	// client gives up or the rule ends.
	Hang bool
	// Status is required by Fail: 400 to 599. The answer is a metav1.Status; 429
	// comes with a Retry-After of one second, on which client-go tries again by
	// itself, up to ten times.
	Status int
	// Probability that a request is hit, 0 to 1; zero means 1. What is under way
	// when the rule is set is drawn once as well.
	Probability float64
}

// String returns the rule in words, for the log of a run.
func (r Rule) String() string {
	s := r.Action.String()
	switch r.Action {
	case Delay:
		s += " " + r.Delay.String()
	case Fail:
		s += fmt.Sprintf(" %d", r.Status)
	}
	if r.Late {
		s += ", late"
	}
	if r.Hang {
		s += ", hang"
	}
	if r.Probability != 0 && r.Probability != 1 {
		s += fmt.Sprintf(", %.0f %%", 100*r.Probability)
	}
	return s
}

// ErrRule is what Set returns, wrapped, for a rule that makes no sense.
var ErrRule = errors.New("bad rule")

func (r Rule) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrRule}, args...)...))
		}
	}
	check(r.Action <= Fail, "unknown %v", r.Action)
	check(!r.Late || r.Action == Stall || r.Action == Delay, "%v cannot be late", r.Action)
	check(!r.Hang || r.Action == DropAnswer, "%v cannot hang", r.Action)
	check((r.Delay > 0) == (r.Action == Delay), "%v with a delay of %v", r.Action, r.Delay)
	check((r.Status != 0) == (r.Action == Fail) && (r.Status == 0 || (r.Status >= http.StatusBadRequest && r.Status < 600)),
		"%v with status %d", r.Action, r.Status)
	check(r.Probability >= 0 && r.Probability <= 1, "probability %v", r.Probability)
	return errors.Join(errs...)
}
