// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build mutants

package claim

import (
	"flag"
	"testing"
)

var mutantSeeds = flag.Int("mutant-seeds", 1000, "how many seeds a broken rule may survive in TestMutants")

// mutants are the rules, each of which TestMutants takes out in turn. The name
// says what is done instead.
var mutants = []struct {
	name string
	rule rule
}{
	{"activates without a look at the others", lookAfterClaim},
	{"looks in the watch's copy", quorumList},
	{"evicts without a condition", evictConditionally},
	{"counts the fence from the answer", fenceFromSend},
	{"has no fence", fenceAtAll},
	{"counts the fence on the monotonic clock only", fenceOnWallClock},
	{"works on after a pause without a look at the fence", checkAfterPause},
	{"has a renew deadline as long as the lease", deadlineBelowDuration},
	{"takes a release without an answer for not done", freeBeforeSend},
	{"believes a read", writeNotRead},
	{"keeps a claim that it does not want", withdraw},
	{"releases before the work has ended", drainFirst},
	{"evicts after a gap of its own", restartAfterGap},
	{"gains and evicts with a stale watch", freshWatch},
	{"waits for a stale watch for ever", relistStale},
	{"forgets who has vanished", buryVanished},
	{"keeps to itself who has vanished", publishTombstones},
	{"forgets another process of its name that has vanished", buryNamesakes},
	{"goes on after a restore", noticeRestore},
	{"compares partitions by their numbers only", compareRanges},
	{"evicts everyone at once", fewEvictions},
	{"begins with whatever the cache holds", freshCache},
}

// TestMutants takes out one rule at a time. The simulation must notice each, or it
// would not notice if somebody broke it by mistake.
func TestMutants(t *testing.T) {
	for _, mutant := range mutants {
		t.Run(mutant.name, func(t *testing.T) {
			broken = mutant.rule
			defer func() { broken = 0 }()
			_, failed := runSeeds(*fromFlag, *mutantSeeds, 1)
			if len(failed) == 0 {
				t.Fatalf("survived %d seeds", *mutantSeeds)
			}
			first := failed[0]
			for _, f := range failed {
				if f.seed < first.seed {
					first = f
				}
			}
			t.Logf("noticed with %d seeds: %v", first.seed-*fromFlag+1, first.err)
		})
	}
}
