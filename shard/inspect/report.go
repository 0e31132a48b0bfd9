// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

// Report is what the status page of a member (shard.Sharder.DebugHandler) shows as JSON.
type Report struct {
	Ring       string `json:"ring"`
	Parameters string `json:"parameters"` // fingerprint of the parameters in force
	// ParametersLease is the Lease that they are from, if they are not this member's own.
	ParametersLease string `json:"parametersLease,omitempty"`

	Member     string            `json:"member"`
	Problem    string            `json:"problem,omitempty"`   // why this member is not ready
	Waiting    string            `json:"waiting,omitempty"`   // what this member waits for before it works for the first time
	LastError  string            `json:"lastError,omitempty"` // of the requests for Leases, if they fail now
	Warnings   []string          `json:"warnings,omitempty"`  // what an administrator should know
	Fenced     bool              `json:"fenced"`
	FenceIn    string            `json:"fenceIn,omitempty"`
	States     map[string]int    `json:"states"`   // partitions by state
	Blockers   map[string]int    `json:"blockers"` // by holder: partitions that it claims and this member wants
	InFlight   []string          `json:"inFlight"` // items, and how long work on them has been running
	Members    []MemberReport    `json:"members"`
	Partitions []PartitionReport `json:"partitions"`
}

// MemberReport is one Lease of the ring.
type MemberReport struct {
	Lease  string `json:"lease"`
	Pod    string `json:"pod"`    // the name that PartitionReport.Owner uses
	Holder string `json:"holder"` // "" if void
	Phase  string `json:"phase"`
	Self   bool   `json:"self"`
	Silent string `json:"silent,omitempty"` // time since the last change of the Lease was seen
	Should int    `json:"should"`           // partitions that the ring assigns to it
	Claims int    `json:"claims"`           // partitions that it claims; -1 for everything
}

// PartitionReport is one partition.
type PartitionReport struct {
	Owner string `json:"owner"` // the member that the ring assigns it to
	State string `json:"state"` // on this member
	Token string `json:"token,omitempty"`
}
