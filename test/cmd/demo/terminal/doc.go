// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package terminal is what the demo knows of terminals: how large one is, what it
// can show, and how to show on one line what is being done. It needs nothing but
// the standard library, so that it is compiled in a second.
package terminal
