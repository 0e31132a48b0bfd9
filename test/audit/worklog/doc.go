// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package worklog is about what replica processes record of their work. A [Writer] writes
// the records. [Check] finds what must not happen: two processes that work on one object at
// the same time, an object without an owner, an object whose last version no replica has
// processed.
//
// Check knows nothing about Kubernetes, rings or the library's code. It relies on the
// records, and on what the caller observed from outside: when a process was killed,
// when it was paused, and which objects existed at the end.
//
// # Records
//
// A record is a line of JSON. Each replica process writes its own file.
//
//   - W1: When the call that writes a record returns, one write(2) has passed the record to
//     the kernel: the record survives if the process is killed.
//   - W2: The time from "start" to "end" contains the work: "start" is written before the
//     work begins, "end" after it has ended.
//   - W3: On Linux all processes of a machine use one clock that never goes back, see [Now].
//
// Records do not survive a power failure. Times of different machines cannot be compared. A
// Writer may be used from any goroutine.
//
// # Findings
//
//   - F1, overlap: two pieces of work on one key at the same time. Work that started
//     and has no recorded end lasts until its process died, or until the end of the run
//     if the caller does not report a death. Time in which a process was paused does not
//     count as work; see [Options.WritesRecorded] for what it does afterwards.
//   - F2, double ownership: two processes active on one partition at the same time,
//     even if neither had work there. What a process recorded about itself while it was
//     paused is not evidence: it could not check its fence either.
//   - F3, token drop: work, or a write, under a lower fencing token than an earlier
//     one on the same key had.
//   - F4, loss: an object on whose last version no process finished work without an
//     error.
//   - F5, gap: time in which a partition had no owner, with the reason why the former owner
//     stopped. The caller decides how long is too long.
//   - F6, version drop: work on an older version of an object than was worked on
//     before. This is harmless as long as writes are conditional.
//   - F7, problem: records that contradict each other or what the caller knows.
//
// Of n pieces of work on a key, each that overlaps an earlier one is reported together
// with the earlier one that lasts longest. Not every pair is listed.
//
// # What it cannot see
//
// Check cannot see a request that was in flight when its process was paused, or
// that was in flight for longer than the work in which it was sent. It compares
// ownership by partition number. Check a run in which the number of partitions changes
// by its work only, with [Options.WorkAlone].
//
// Everything is sorted once, so the time is O(n log n) in the number of records.
package worklog
