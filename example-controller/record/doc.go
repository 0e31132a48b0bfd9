// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package record records what a replica works on, so that another program can check
// afterwards that no two replicas worked on one object at the same time, and that no
// object was missed. Package checker of the test module does this.
//
// A record is a line of JSON. Each replica process writes its own file.
//
// # Guarantees
//
//   - W1: When the call that writes a record returns, one write(2) has passed the record to
//     the kernel: the record survives if the process is killed.
//   - W2: The time from "start" to "end" contains the work: "start" is written before the
//     work begins, "end" after it has ended.
//   - W3: On Linux all processes of a machine use one clock that never goes back, see [Now].
//   - W4: A nil *Writer is ready to use and writes nothing, so that a program need not check
//     whether recording is enabled.
//
// # What is not guaranteed
//
// Records do not survive a power failure. Times of different machines cannot be compared.
//
// # Concurrency
//
// A Writer may be used from any goroutine. The lines of a file are in the order of
// their times.
package record
