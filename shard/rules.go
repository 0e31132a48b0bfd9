// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

// rule is one of the rules of the loop, the door and the transport on which safety
// or progress rests; package claim has a list of its own. The tests take them out one
// at a time, to see that a fleet under faults notices: with the build tag "mutants"
// broken is a variable. In every other build it is the constant 0, and the compiler
// removes what depends on it.
type rule uint8

const (
	fenceAtAll        rule = iota + 1 // a fenced member hands out nothing and sends no write
	fenceByClock                      // and reads the clocks for it, not only what the loop has noticed
	cancelAtFence                     // the fence ends the contexts of all work
	cancelOnDrain                     // a drain ends the contexts of its work
	waitForWork                       // and waits until the work has ended
	hearOfEnds                        // which it is told at once
	withdraw                          // partitions to be drained or released are withdrawn from the snapshot
	withdrawAtEnd                     // all of them when the machine ends
	publishFirst                      // readers see the new state before anybody is told of a change
	replayGained                      // activation replays the objects
	forgetReleased                    // handlers forget the objects of released partitions, to see them anew
	rememberDeletions                 // deletions are replayed too
	readmitActivated                  // activation readmits what is parked
	readmitUnfenced                   // so does the end of a fence
	refuseWrites                      // the transport sends no write of work that may not go on
	finishWrites                      // and breaks none off for a drain
	outliveCallers                    // nor for a caller that cancels its context
	freshTokens                       // tokens change with the claims
	boundRequests                     // each request to the API server has a timeout
	restartWatch                      // the watch is started again when the machine asks for it
	syncFirst                         // a member joins when its informers have synced
	rejoin                            // a member that has lost its Lease joins again
	restFirst                         // when its last piece of work has ended
	ownAnswers                        // a machine gets no answers to its predecessor's requests
	inheritTombstones                 // but its predecessor's tombstones
	rememberVanished                  // and what has vanished between the two
	rememberLeases                    // and what the watch has shown before
	rememberSync                      // and that the informers have synced
	fenceWithoutLoop                  // the fence ends contexts although the loop is blocked
	oneProcess                        // only the process that holds its Pod's lock takes the Pod's Lease over at once
)
