// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build mutants

package shard

import (
	"fmt"
	"os"
)

// broken is the rule that is left out. 0: none. Tests of this package set it; a
// whole process takes it from the environment.
var broken = brokenInProcess()

func brokenInProcess() rule {
	switch name := os.Getenv("BROKEN_LOOP_RULE"); name {
	case "":
		return 0
	case "waitForWork":
		return waitForWork
	default:
		panic(fmt.Sprintf("no process can run without the rule %q", name))
	}
}
