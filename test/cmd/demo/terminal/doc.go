// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package terminal has the demo's terminal functions: the size of a terminal, its
// capabilities, and progress on one line. It needs only the standard library, so that it
// compiles within a second.
package terminal
