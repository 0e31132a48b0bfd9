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
	// Pass forwards. It is the initial rule of all classes.
	Pass Action = iota
	// Cut resets the connections of all requests in flight and of each new request,
	// which does not reach the server. [Gateway.Cut] counts as well.
	Cut
	// Stall lets nothing pass. New requests hang and do not reach the server; responses
	// in flight do not arrive; running watches stay open and silent. When the rule ends,
	// all of their connections are reset, unless Late is set.
	Stall
	// Delay forwards a request after Rule.Delay. It delays the events of a watch by the
	// same time, together with the events that arrive in the meantime. Delayed requests
	// wait for their time even if the rule ends.
	Delay
	// DropResponse forwards a request, and resets the connection when the server has
	// responded, with any status; it is counted then. It applies to requests in flight
	// without a response. The response to a watch begins as soon as the watch starts, so
	// running watches continue.
	DropResponse
	// Fail responds with Rule.Status. Requests in flight continue: use [Gateway.Cut] to
	// make clients restart their watches.
	Fail
	actions
)

var actionNames = [actions]string{"pass", "cut", "stall", "delay", "drop response", "fail"}

// String returns the action in words.
func (a Action) String() string { return actionNames[a] }

// Rule defines what happens to the requests of a class. The zero value lets them pass.
type Rule struct {
	Action Action
	// Late applies to Stall and Delay. For a stall, it means that held requests are
	// forwarded and held events delivered when the rule ends. For both, it means that a
	// request (not a watch) is executed even if its client has given up.
	Late bool
	// Delay is required by the action Delay.
	Delay time.Duration
	// Hang applies to DropResponse: the connection stays open and silent until the
	// client gives up or the rule ends.
	Hang bool
	// Status is required by Fail: 400 to 599. The response is a metav1.Status. With 429,
	// it has a Retry-After of one second, so that client-go retries on its own, up to ten
	// times.
	Status int
	// Probability is the probability that a request is affected, 0 to 1; zero means 1.
	// It also applies, once, to each request in flight when the rule is set.
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

func (r Rule) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(!r.Late || r.Action == Stall || r.Action == Delay, "%v cannot be late", r.Action)
	check(!r.Hang || r.Action == DropResponse, "%v cannot hang", r.Action)
	check((r.Delay > 0) == (r.Action == Delay), "%v with a delay of %v", r.Action, r.Delay)
	check((r.Status != 0) == (r.Action == Fail) && (r.Status == 0 || (r.Status >= http.StatusBadRequest && r.Status < 600)),
		"%v with status %d", r.Action, r.Status)
	check(r.Probability >= 0 && r.Probability <= 1, "probability %v", r.Probability)
	return errors.Join(errs...)
}
