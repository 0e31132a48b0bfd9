// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package process is how the demo starts other processes: so that none survives
// it, and that a Ctrl-C reaches the demo alone, which ends them in order. It needs
// nothing but the standard library, so that it is compiled in a second.
package process
