// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package replica runs replicas (see command replica) as separate processes, and
// stops, kills and pauses them.
//
// [Build] compiles the binary; [Start] starts one process. The [Process] gives access to
// its output, its records and its probes.
//
// # Guarantees
//
//   - P1: Each process has its own log and its own file of records, even if it is not the
//     first process of its Pod: nothing is overwritten or mixed.
//   - P2: Stop and Kill return when the process has ended, paused or not.
//   - P3: The death and the pauses that [Process.History] returns are conservative: at
//     those times the process was certainly not running.
//   - P4: On Linux, a process does not outlive the process that started it, even if that is
//     killed. On other systems, the caller must end the processes that it has started.
//
// # What is not guaranteed
//
// That a started process works: check this with [Process.Ready].
//
// # Concurrency
//
// All methods may be called from any goroutine.
package replica
