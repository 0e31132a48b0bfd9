// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/zeebo/xxh3"
)

// maxName is the maximum length of a Lease name.
const maxName = 253

// Name returns the name of a member's Lease: the prefix and the Pod name. If that exceeds
// the maximum length, its end is replaced by a hash of the whole name, so that the name
// is stable for each Pod name and differs between Pods.
func Name(prefix, pod string) string {
	name := prefix + pod
	if len(name) <= maxName {
		return name
	}
	hash := fmt.Sprintf("-%016x", xxh3.HashString(name))
	return strings.TrimRight(name[:maxName-len(hash)], "-.") + hash
}

// hashed matches names that [Name] has shortened.
var hashed = regexp.MustCompile(`^.{200,}-[0-9a-f]{16}$`)
