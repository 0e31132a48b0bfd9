// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package process starts other processes for the demo. None of them outlives the demo,
// and Ctrl-C reaches only the demo, which then stops them in order. The package needs only
// the standard library, so that it compiles within a second.
package process
