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
	// Passed counts requests that no rule affected when they arrived.
	Passed Effect = iota
	// WasCut counts requests and watches that were reset by Cut.
	WasCut
	// WasStalled counts requests and running watches that a stall has affected.
	WasStalled
	// WasDelayed counts requests and running watches that a delay has affected.
	WasDelayed
	// WasFailed counts requests to which a rule has responded.
	WasFailed
	// ResponseDropped counts dropped responses of any status.
	ResponseDropped
	// WentLate counts requests that were forwarded after a stall or a delay with Late,
	// and chunks and responses that a stall with Late has held.
	WentLate
	// CarriedOut counts the requests of ResponseDropped and WentLate, without watches,
	// to which the server has responded with success.
	CarriedOut
	// Unreachable counts requests that could not be forwarded and responses that were
	// interrupted, if no rule was the cause.
	Unreachable
	effects
)

var effectNames = [effects]string{
	"passed", "cut", "stalled", "delayed", "failed", "response dropped", "late", "carried out", "unreachable",
}

// String returns the effect in words.
func (e Effect) String() string {
	if e < effects {
		return effectNames[e]
	}
	return fmt.Sprintf("effect %d", uint8(e))
}

// Counts counts what a [Gateway] has done since its start. It is a copy.
type Counts struct{ of [classes][effects]int }

// Of returns how often an effect occurred on requests of the given classes.
func (c Counts) Of(which Class, effect Effect) (sum int) {
	for i := range c.of {
		if which&(1<<i) != 0 && effect < effects {
			sum += c.of[i][effect]
		}
	}
	return sum
}

// String returns one line for each class that had a request.
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
