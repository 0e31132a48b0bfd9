// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build mutants

package shard

// Mutant is the code without one rule.
type Mutant struct {
	Name string // what it does instead
	rule rule
	// Equivalent says why no fleet can notice, "" if the fleet of TestFaults must.
	Equivalent string
}

// Mutants are those that TestLoopMutants runs.
var Mutants = []Mutant{
	{Name: "has no fence", rule: fenceAtAll},
	{Name: "is fenced when the loop notices", rule: fenceByClock},
	{Name: "ends no context at the fence", rule: cancelAtFence},
	{Name: "ends contexts at the fence only when the loop does", rule: fenceWithoutLoop},
	{Name: "ends no context for a drain", rule: cancelOnDrain},
	{Name: "releases before the work has ended", rule: waitForWork},
	{Name: "does not hear of the end of work", rule: hearOfEnds},
	{Name: "goes on showing what it has released", rule: withdraw},
	{Name: "goes on showing what it owned at its end", rule: withdrawAtEnd},
	{Name: "tells of changes before it shows them", rule: publishFirst},
	{Name: "replays nothing", rule: replayGained},
	{Name: "does not let handlers forget", rule: forgetReleased},
	{Name: "forgets deletions", rule: rememberDeletions},
	{Name: "leaves parked what is active", rule: readmitActivated},
	{Name: "leaves parked what the fence had stopped", rule: readmitUnfenced},
	{Name: "writes whatever it has lost", rule: refuseWrites},
	{Name: "breaks writes off for a drain", rule: finishWrites},
	{Name: "breaks writes off for their callers", rule: outliveCallers},
	{Name: "keeps its first token", rule: freshTokens},
	{Name: "waits for ever for an answer", rule: boundRequests},
	{Name: "does not start a dead watch again", rule: restartWatch},
	{Name: "joins before its informers have synced", rule: syncFirst},
	{Name: "does not join again", rule: rejoin},
	{Name: "joins again while work goes on", rule: restFirst},
	{Name: "takes answers to its predecessor", rule: ownAnswers, Equivalent: "a machine ends only between two requests to its own Lease; " +
		"a list counts only if it shows the own Lease at its last write; and a wrong answer to an eviction is put right by the peer's next heartbeat, " +
		"before which nothing becomes active without a list"},
	{Name: "forgets its predecessor's tombstones", rule: inheritTombstones},
	{Name: "forgets what vanished before it was made", rule: rememberVanished},
	{Name: "forgets what the watch has shown", rule: rememberLeases, Equivalent: "a machine looks at a list before it becomes active anywhere; " +
		"and each peer's next heartbeat makes up for what it was not told, within a renew period"},
	{Name: "forgets that its informers have synced", rule: rememberSync},
	{Name: "takes the Lease of a living process over", rule: oneProcess},
}

// With runs f with the mutant in the place of the code.
func (m Mutant) With(f func()) {
	broken = m.rule
	defer func() { broken = 0 }()
	f()
}
