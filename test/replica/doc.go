// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package replica runs replicas of the example controller as processes of their
// own, and does to them what happens to processes: stops, kills, pauses.
//
// [Build] compiles the binary; [Start] starts one process, of which a [Process]
// says what it printed, what it recorded and what it answers on its probes.
//
// # Guarantees
//
//   - P1: Each process has a log and a file of records of its own, also a second
//     one of the same Pod: nothing is overwritten or mixed.
//   - P2: Stop and Kill return when the process has ended, paused or not.
//   - P3: What [Process.History] says about death and pauses is on the safe side:
//     at those times the process certainly did not run.
//   - P4: On Linux a process does not outlive the one that started it, even if
//     that is killed. Elsewhere the caller must end what it has started.
//
// # What is not guaranteed
//
// That a process which was started works: ask it with [Process.Ready].
//
// # Concurrency
//
// All methods may be called from any goroutine.
package replica
