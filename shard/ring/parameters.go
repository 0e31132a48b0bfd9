// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// The defaults of [DefaultParameters].
const (
	DefaultPartitions   = 509
	DefaultVirtualNodes = 20
	DefaultLoad         = 1.25
)

// MaxPartitions bounds the size of the claims on a member's Lease: one bit for each
// partition is at most 8 KiB, well below the size limit of annotations.
const MaxPartitions = 1 << 16

// MaxMembers is how many members a ring of running members has. It bounds the time to compute
// one, which grows faster than the square of the number of members. [New] does not enforce it.
const MaxMembers = 256

// MaxVirtualNodes bounds the time to compute a ring: about a second for 100 members, and five
// to ten for [MaxMembers]. Far fewer virtual nodes are useful (see BenchmarkMovement).
const MaxVirtualNodes = 1000

// placement identifies the code that maps partitions to members. Version 1.0 of the
// library changed the places of its virtual nodes, so members that run different versions
// would compute different rings: the version is part of the fingerprint.
const placement = "consistent-v1.1.0"

// placementSample is the result of sampleOfPlacement for the version in placement.
const placementSample = 0x01300450bde794c7

// placementInUse returns placement, unless the program was built with a version of the
// library (or of the hash) that computes another placement. An operator's go.mod may
// select a newer version than this module requires, so the version in this module's
// go.mod proves nothing.
var placementInUse = sync.OnceValue(func() string {
	if sample := sampleOfPlacement(); sample != placementSample {
		return fmt.Sprintf("consistent-%016x", sample)
	}
	return placement
})

// sampleOfPlacement returns a hash of one placement: of members with StatefulSet Pod names
// of up to two digits, and with a load so low that the bound determines the owner of some
// partitions.
func sampleOfPlacement() uint64 {
	members := make([]string, 12)
	for i := range members {
		members[i] = "op-" + strconv.Itoa(i)
	}
	r, err := New(Parameters{Key: ByName.Name(), Partitions: 256, VirtualNodes: 20, Load: 1.1}, members)
	if err != nil {
		panic(fmt.Sprintf("ring: placement sample: %v", err)) // cannot happen: its parameters are valid
	}
	owners := make([]byte, len(r.owner))
	for partition, owner := range r.owner {
		owners[partition] = byte(owner)
	}
	return fnv1a(string(owners))
}

// Parameters are the inputs of a ring in addition to its members. Members with different
// parameters compute different rings, so each member publishes its parameters on its Lease.
type Parameters struct {
	// Key identifies how keys are derived: [Key.Name] of the ring's key.
	Key string
	// Partitions is the number of partitions, 1 to MaxPartitions. More partitions
	// spread objects more evenly and need more space on the Lease.
	Partitions int
	// VirtualNodes is the number of places that a member has in the hash space,
	// 1 to MaxVirtualNodes. With more of them, fewer partitions move when a member joins
	// or leaves.
	VirtualNodes int
	// Load bounds how much a member owns: at most ceil(Partitions / members × Load)
	// partitions. At least 1.
	Load float64
}

// DefaultParameters returns the defaults for a ring with the key [ByName].
func DefaultParameters() Parameters {
	return Parameters{
		Key:          ByName.Name(),
		Partitions:   DefaultPartitions,
		VirtualNodes: DefaultVirtualNodes,
		Load:         DefaultLoad,
	}
}

var keyName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// Validate returns every fault, joined with errors.Join, or nil if the parameters are
// valid.
func (p Parameters) Validate() error {
	var errs []error
	fault := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
	switch {
	case p.Key == keyByController || p.Key == keyByClusterController:
		fault("Key", "%q is relative to the key of a ring and cannot be the key of a ring itself", p.Key)
	case !keyName.MatchString(p.Key):
		name, longest := p.Key, 63
		if custom, ok := strings.CutPrefix(p.Key, customPrefix); ok { // name the part that the user has set
			name, longest = custom, longest-len(customPrefix)
		}
		fault("Key", "name %.100q must be 1 to %d lower-case letters, digits, '-' or '.', starting and ending with a letter or digit", name, longest)
	}
	if p.Partitions < 1 || p.Partitions > MaxPartitions {
		fault("Partitions", "%d is not between 1 and %d", p.Partitions, MaxPartitions)
	}
	if p.VirtualNodes < 1 || p.VirtualNodes > MaxVirtualNodes {
		fault("VirtualNodes", "%d is not between 1 and %d", p.VirtualNodes, MaxVirtualNodes)
	}
	if !(p.Load >= 1) || math.IsInf(p.Load, 0) { // the negation catches NaN
		fault("Load", "%v must be a finite number of at least 1, or there is not enough room for all partitions", p.Load)
	}
	return errors.Join(errs...)
}

// Fingerprint returns the canonical text of the parameters, including the hash
// function and the version of the placement code. [ParseFingerprint] parses it.
// Members whose fingerprints are equal compute equal rings.
func (p Parameters) Fingerprint() string {
	return strings.Join([]string{
		hashName(p.Key), p.Key,
		strconv.Itoa(p.Partitions), strconv.Itoa(p.VirtualNodes),
		strconv.FormatFloat(p.Load, 'g', -1, 64), placementInUse(),
	}, "/")
}

// maxFingerprint is longer than any fingerprint of valid parameters. A longer text is
// rejected without being parsed, and kept out of errors and logs.
const maxFingerprint = 256

// ParseFingerprint parses the result of [Parameters.Fingerprint]. It rejects a
// fingerprint for which this version of the package cannot compute the same ring.
func ParseFingerprint(text string) (Parameters, error) {
	if len(text) > maxFingerprint {
		return Parameters{}, fmt.Errorf("ring parameters %.100q: %d characters, more than %d", text, len(text), maxFingerprint)
	}
	fields := strings.Split(text, "/")
	if len(fields) != 6 {
		return Parameters{}, fmt.Errorf("ring parameters %.100q: %d fields instead of 6", text, len(fields))
	}
	p := Parameters{Key: fields[1]}
	var errs []error
	var err error
	if p.Partitions, err = strconv.Atoi(fields[2]); err != nil {
		errs = append(errs, err)
	}
	if p.VirtualNodes, err = strconv.Atoi(fields[3]); err != nil {
		errs = append(errs, err)
	}
	if p.Load, err = strconv.ParseFloat(fields[4], 64); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return Parameters{}, fmt.Errorf("ring parameters %.100q: %w", text, err)
	}
	if err := p.Validate(); err != nil {
		return Parameters{}, fmt.Errorf("ring parameters %.100q: %w", text, err)
	}
	if p.Fingerprint() != text {
		return Parameters{}, fmt.Errorf("ring parameters %.100q: written by a version that computes another placement (this version would write %q)", text, p.Fingerprint())
	}
	return p, nil
}

// SameKeys reports whether the two parameters map every object to the same point
// of the hash space. Only then can partitions under the one be compared with
// partitions under the other.
func (p Parameters) SameKeys(other Parameters) bool { return p.Key == other.Key }
