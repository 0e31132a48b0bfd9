// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package audit has what its packages worklog and etcdlog share: their findings.
package audit

import (
	"errors"
	"fmt"
	"strings"
)

// Finding is something that must not have happened. Times are those of worklog.Now.
type Finding struct {
	Kind    string // what it is, starting with its number in the documentation of the package that found it
	Subject string // an object, a process, or a partition ("partition 17")
	What    string
	// From and To are its start and end. 0: it has no time, as a loss.
	From, To int64
	// First and Second are the processes that contradict each other, if there are two.
	First, Second string
	Partition     int // if the subject is a partition
}

// String returns the finding on one line.
func (f Finding) String() string { return f.Kind + ": " + f.Subject + ": " + f.What }

// Count counts the findings of a kind.
func Count(all []Finding, kind string) (n int) {
	for _, f := range all {
		if f.Kind == kind {
			n++
		}
	}
	return n
}

// List describes findings that are grouped by kind, with the first ones of each kind.
func List(all []Finding) string {
	const first = 10
	var b strings.Builder
	n := 0 // of the present kind
	for i, f := range all {
		if i == 0 || f.Kind != all[i-1].Kind {
			fmt.Fprintf(&b, "%6d  %s\n", Count(all, f.Kind), f.Kind)
			n = 0
		}
		if n++; n <= first {
			fmt.Fprintf(&b, "        %s: %s\n", f.Subject, f.What)
		}
	}
	return b.String()
}

// Err returns an error that lists the findings; nil if there are none.
func Err(all []Finding) error {
	if len(all) == 0 {
		return nil
	}
	return errors.New("findings:\n" + List(all))
}
