// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"
	"strings"

	"github.com/zeebo/xxh3"
)

// maxName is what the API server allows for the name of a Lease.
const maxName = 253

// Name returns the name of a member's Lease: the prefix and the Pod's name. If
// that is longer than a name may be, its end is replaced by a hash of the whole,
// so that it stays the same in every life of the Pod and differs between Pods.
func Name(prefix, pod string) string {
	name := prefix + pod
	if len(name) <= maxName {
		return name
	}
	hash := fmt.Sprintf("-%016x", xxh3.HashString(name))
	return strings.TrimRight(name[:maxName-len(hash)], "-.") + hash
}
