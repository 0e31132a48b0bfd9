// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import "testing"

// collectGarbage runs the garbage collector until the test ends. Such a test must
// not be parallel.
func collectGarbage(t *testing.T) {
	t.Helper()
	if err := shared.cp.GarbageCollector.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shared.cp.GarbageCollector.Kill)
}
