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

// MaxPartitions bounds the claims that a member keeps on its Lease: one bit a
// partition is 8 KiB at the most, well below what an annotation may hold.
const MaxPartitions = 1 << 16

// MaxVirtualNodes bounds the time that it takes to compute a ring: about a second
// for 100 members. Far fewer are of use (see BenchmarkMovement).
const MaxVirtualNodes = 1000

// placement names the code that maps partitions to members. Version 1.0 of the
// library changed where its virtual nodes lie, so members that run different
// versions would disagree with each other: the version is part of the fingerprint.
const placement = "consistent-v1.1.0"

// placementSample is what sampleOfPlacement returns for the version that
// placement names.
const placementSample = 0x01300450bde794c7

// placementInUse is placement, unless the program was built with a version of the
// library (or of the hash) that places otherwise. An operator's go.mod may select a newer one
// than this module asks for, so the version in our own go.mod proves nothing.
var placementInUse = sync.OnceValue(func() string {
	if sample := sampleOfPlacement(); sample != placementSample {
		return fmt.Sprintf("consistent-%016x", sample)
	}
	return placement
})

// sampleOfPlacement is a hash over one placement: StatefulSet names with two
// digits, and a load low enough that the bound decides about some partitions.
func sampleOfPlacement() uint64 {
	members := make([]string, 12)
	for i := range members {
		members[i] = "op-" + strconv.Itoa(i)
	}
	r, err := New(Parameters{Key: ByName.Name(), Partitions: 256, VirtualNodes: 20, Load: 1.1}, members)
	if err != nil {
		panic(fmt.Sprintf("ring: the sample of the placement: %v", err)) // its parameters are possible
	}
	owners := make([]byte, len(r.owner))
	for partition, owner := range r.owner {
		owners[partition] = byte(owner)
	}
	return fnv1a(string(owners))
}

// Parameters are what a ring depends on beside its members. Members with
// different parameters compute different rings, so the parameters stand on each
// member's Lease.
type Parameters struct {
	// Key names how keys are derived: [Key.Name] of the ring's key.
	Key string
	// Partitions is the number of partitions, 1 to MaxPartitions. More partitions
	// spread objects more evenly and cost more on the Lease.
	Partitions int
	// VirtualNodes is the number of places that a member has in the hash space,
	// 1 to MaxVirtualNodes. More of them move less when a member comes or goes.
	VirtualNodes int
	// Load bounds what a member owns: at most ceil(Partitions / members × Load)
	// partitions. At least 1.
	Load float64
}

// DefaultParameters are those of the key [ByName].
func DefaultParameters() Parameters {
	return Parameters{
		Key:          ByName.Name(),
		Partitions:   DefaultPartitions,
		VirtualNodes: DefaultVirtualNodes,
		Load:         DefaultLoad,
	}
}

var keyName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// Validate names every fault, joined with errors.Join. It returns nil if the
// parameters are possible.
func (p Parameters) Validate() error {
	var errs []error
	switch {
	case p.Key == keyByController || p.Key == keyByClusterController:
		errs = append(errs, fmt.Errorf("key: %q is relative to the key of a ring and can't be a ring's own", p.Key))
	case !keyName.MatchString(p.Key):
		errs = append(errs, fmt.Errorf("key: name %.100q must be 1 to 63 lower-case letters, digits, '-' or '.', starting and ending with a letter or digit", p.Key))
	}
	if p.Partitions < 1 || p.Partitions > MaxPartitions {
		errs = append(errs, fmt.Errorf("partitions: %d is not between 1 and %d", p.Partitions, MaxPartitions))
	}
	if p.VirtualNodes < 1 || p.VirtualNodes > MaxVirtualNodes {
		errs = append(errs, fmt.Errorf("virtual nodes: %d is not between 1 and %d", p.VirtualNodes, MaxVirtualNodes))
	}
	if !(p.Load >= 1) || math.IsInf(p.Load, 0) { // the negation catches NaN
		errs = append(errs, fmt.Errorf("load: %v must be a finite number of at least 1, or there is not enough room for all partitions", p.Load))
	}
	return errors.Join(errs...)
}

// Fingerprint is the canonical text of the parameters, including the hash
// function and the version of the placement code. [ParseFingerprint] reads it.
// Members whose fingerprints are equal compute equal rings.
func (p Parameters) Fingerprint() string {
	return strings.Join([]string{
		hashName(p.Key), p.Key,
		strconv.Itoa(p.Partitions), strconv.Itoa(p.VirtualNodes),
		strconv.FormatFloat(p.Load, 'g', -1, 64), placementInUse(),
	}, "/")
}

// maxFingerprint is more than any fingerprint of possible parameters takes. What
// is longer is refused unread, and kept out of errors and logs.
const maxFingerprint = 256

// ParseFingerprint reads what [Parameters.Fingerprint] wrote. It refuses a
// fingerprint that this version of the package can't compute the same ring for.
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
		return Parameters{}, fmt.Errorf("ring parameters %.100q: written by a version that places objects differently (this one would write %q)", text, p.Fingerprint())
	}
	return p, nil
}

// SameKeys reports whether the two parameters map every object to the same point
// of the hash space. Only then can partitions under the one be compared with
// partitions under the other.
func (p Parameters) SameKeys(other Parameters) bool { return p.Key == other.Key }
