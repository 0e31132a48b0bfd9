// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"strings"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Inspection is what a status page shows of a member: the published view, and what only
// the loop knows.
type Inspection struct {
	*View
	Stopping bool
	InForce  ring.Parameters // the parameters in force
	Peers    []claim.PeerStatus
	Blockers map[string]int // by holder: partitions that it claims and this member wants
}

// byPod sums numbers by holder to numbers by Pod.
func byPod(byHolder map[string]int) map[string]int {
	sums := map[string]int{}
	for holder, n := range byHolder {
		pod, _, _ := strings.Cut(holder, "_") // a Pod name contains no underscore
		sums[pod] += n
	}
	return sums
}

// difference returns the elements of a that are not in b.
func difference(a, b []string) []string {
	in := make(map[string]bool, len(b))
	for _, x := range b {
		in[x] = true
	}
	var rest []string
	for _, x := range a {
		if !in[x] {
			rest = append(rest, x)
		}
	}
	return rest
}
