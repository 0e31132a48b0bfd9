// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"fmt"
	"strings"
)

// Effect is something that a [Gateway] counts.
type Effect uint8

const (
	// Passed counts requests that no rule hit when they came.
	Passed Effect = iota
	// WasCut counts requests and watches that were reset by Cut.
	WasCut
	// WasStalled counts requests and running watches that a stall has hit.
	WasStalled
	// WasDelayed counts requests and running watches that a delay has hit.
	WasDelayed
	// WasFailed counts requests that were answered by a rule.
	WasFailed
	// AnswerDropped counts answers that were dropped, of any status.
	AnswerDropped
	// WentLate counts requests that were forwarded after a stall or a delay with
	// Late, and chunks and answers that a stall with Late has held.
	WentLate
	// CarriedOut counts those of AnswerDropped and WentLate that are requests, no
	// watches, and to which the server has answered with success.
	CarriedOut
	// Unreachable counts requests that could not be forwarded and answers that
	// broke off, neither because of a rule.
	Unreachable
	effects
)

var effectNames = [effects]string{
	"passed", "cut", "stalled", "delayed", "failed", "answer dropped", "late", "carried out", "unreachable",
}

// String returns the effect in words.
func (e Effect) String() string {
	if e < effects {
		return effectNames[e]
	}
	return fmt.Sprintf("effect %d", uint8(e))
}

// Counts says what a [Gateway] has done since its start. It is a copy.
type Counts struct{ of [classes][effects]int }

// Of returns how often an effect was had on the requests of some classes.
func (c Counts) Of(which Class, effect Effect) (sum int) {
	for i := range c.of {
		if which&(1<<i) != 0 && effect < effects {
			sum += c.of[i][effect]
		}
	}
	return sum
}

// String returns one line for each class that has seen a request.
func (c Counts) String() string {
	var s strings.Builder
	for i := range c.of {
		var line []string
		for e, n := range c.of[i] {
			if n > 0 {
				line = append(line, fmt.Sprintf("%v %d", Effect(e), n))
			}
		}
		if line != nil {
			fmt.Fprintf(&s, "%s: %s\n", classNames[i], strings.Join(line, ", "))
		}
	}
	return s.String()
}
