// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"strings"
	"testing"
)

func TestWorkload(t *testing.T) {
	for pod, want := range map[string]string{
		"foo-operator-7d9f8c6b5d-x2x4z":   "foo-operator",
		"foo-operator-x2x4z":              "foo-operator", // of a DaemonSet
		"foo-operator-0":                  "foo-operator",
		"foo-operator-12":                 "foo-operator",
		"op-1":                            "op",
		"a":                               "a",
		"tenant-a":                        "tenant-a",
		strings.Repeat("x", 58) + "b2c4d": "", // the hash of the ReplicaSet may be cut off
	} {
		if got := workload(pod); got != want {
			t.Errorf("%s: %q instead of %q", pod, got, want)
		}
	}
}
