// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package build

import "testing"

func TestErrorsHaveTheMessagesOfTheCompilerOnly(t *testing.T) {
	const output = "go: downloading k8s.io/api v0.37.2\nk8s.io/api/core/v1\nfmt\n# k8s.io/broken\na.go:1:1: syntax error\n"
	if got, want := withoutProgress(output), "# k8s.io/broken\na.go:1:1: syntax error\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
