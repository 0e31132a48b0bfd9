// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

// rule is one of the rules of the protocol on which safety or progress rests. The
// tests take them out one at a time, to see that the simulation notices: with the
// build tag "mutants" broken is a variable. In every other build it is the
// constant 0, and the compiler removes what depends on it.
type rule uint8

const (
	lookAfterClaim     rule = iota + 1 // a partition becomes active only after a list
	quorumList                         // which is a quorum read, not the watch's copy
	evictConditionally                 // a peer is voided only at the version that was seen unchanged
	fenceFromSend                      // the fence counts from the send time of the renewal, not from its answer
	fenceAtAll                         // there is one
	fenceOnWallClock                   // it counts on the wall clock too
	freeBeforeSend                     // a partition is given up before its release is sent
	writeNotRead                       // a read never tells what is claimed
	withdraw                           // a claim that is not wanted is withdrawn
	restartAfterGap                    // peers' timers start again after a gap in the own renewals
	freshWatch                         // nothing is gained and nobody evicted while own writes don't come back
	relistStale                        // and the watch is started again
	buryVanished                       // what vanished without having been void blocks for a while
	publishTombstones                  // and newcomers are told
	buryNamesakes                      // also if it had this member's name and was another process's
	noticeRestore                      // a Lease that went back in time ends its machine
	drainFirst                         // a claim is withdrawn only when nothing is in flight
	compareRanges                      // claims under other parameters are compared as ranges of the hash space
	fewEvictions                       // few evictions and deletions of peers' Leases are under way at once
	freshCache                         // a partition waits for the caches to have what its former owner wrote
)
