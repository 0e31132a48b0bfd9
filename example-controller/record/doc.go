// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package record writes down what a replica works on, so that somebody else can
// check afterwards that no two replicas worked on one object at once and that none
// was left out. Package checker of the test module does.
//
// A record is a line of JSON. Each replica process writes a file of its own.
//
// # Guarantees
//
//   - W1: A record is on its way to the disk by one write(2) when the call that
//     writes it returns: it survives a process that is killed.
//   - W2: The time from "start" to "end" contains the work: the first is written
//     before the work begins, the second after it has ended.
//   - W3: On Linux all processes of a machine take their times from one clock that
//     never goes back, see [Now].
//   - W4: A nil *Writer is ready to use and writes nothing, so that a program need
//     not ask whether it was told to record.
//
// # What is not guaranteed
//
// Records do not survive a power cut, and times of several machines cannot be
// compared.
//
// # Concurrency
//
// A Writer may be used from any goroutine. The lines of a file are in the order of
// their times.
package record
