// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package checker reads what replica processes have recorded of their work (see
// package record of the example controller) and finds what must not happen: two at
// work on one object, an object without an owner, an object that nobody brought up
// to date.
//
// It knows nothing of Kubernetes, of rings or of the library's code: it believes
// what was recorded, and what the one who ran the test saw from outside: when a
// process was killed, when it was paused, which objects there were in the end.
//
// # Findings
//
//   - F1, overlap: two pieces of work on one key at the same time. Work that was
//     begun and has no recorded end lasts until its process died, or until the end
//     of the run if nobody says that it died. Time in which a process was paused
//     is not work; see [Options.WritesRecorded] for what it does afterwards.
//   - F2, double ownership: two processes active on one partition at the same time,
//     even if neither had work there. What a process says of itself in the span in
//     which it was paused is no evidence: its fence was not awake either.
//   - F3, token drop: work, or a write, under a lower fencing token than an earlier
//     one on the same key had.
//   - F4, loss: an object whose last version nobody worked on without an error.
//   - F5, gap: time without an owner, with the reason why the former owner stopped.
//     How much of it is too much is for the caller to say.
//   - F6, version drop: work on an older version of an object than was worked on
//     before. Nothing is broken by it as long as writes are conditional.
//   - F7, problem: records that contradict themselves or what the caller knows.
//
// Of n pieces of work on a key, each that overlaps an earlier one is found, together
// with the earlier one that lasts longest; not every pair is listed.
//
// # What it cannot see
//
// That a request was on its way when its process was paused, or longer than the
// work in which it was sent. Ownership is compared by number of partition: a run in
// which the number of partitions changes must be judged by work alone, with
// [Options.WorkAlone].
//
// Everything is sorted once: the time is O(n log n) in the number of records.
package checker
