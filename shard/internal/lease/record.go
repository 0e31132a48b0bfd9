// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// LabelRing is the label that names the ring to which a Lease belongs.
const LabelRing = "operator-scaling.tom-ludwig.github.io/ring"

// The annotations of a record.
const (
	annotationProtocol   = "operator-scaling.tom-ludwig.github.io/protocol"
	annotationMember     = "operator-scaling.tom-ludwig.github.io/member"
	annotationPodUID     = "operator-scaling.tom-ludwig.github.io/pod-uid"
	annotationPhase      = "operator-scaling.tom-ludwig.github.io/phase"
	annotationClaims     = "operator-scaling.tom-ludwig.github.io/claims"
	annotationSeq        = "operator-scaling.tom-ludwig.github.io/seq"
	annotationParameters = "operator-scaling.tom-ludwig.github.io/parameters"
	annotationTombstones = "operator-scaling.tom-ludwig.github.io/tombstones"
	annotationWatermarks = "operator-scaling.tom-ludwig.github.io/watermarks"
	annotationEvictedBy  = "operator-scaling.tom-ludwig.github.io/evicted-by"
)

// protocol is the version of the rules by which members read each other's claims.
const protocol = "1"

// fallbackDuration is the duration of a Lease without a valid leaseDurationSeconds.
const fallbackDuration = 15 * time.Second

// ErrForeign is the error for a Lease that is not the record of a member of this ring.
var ErrForeign = errors.New("not a Lease of this ring")

// encode writes the record to the Lease and keeps its name and metadata. now is the wall
// clock.
func encode(l *coordinationv1.Lease, r claim.Record, now time.Time) {
	if l.Annotations == nil {
		l.Annotations = map[string]string{}
	}
	seconds := int32(min(int64(math.Ceil(r.Duration.Seconds())), math.MaxInt32))
	renewed := metav1.NewMicroTime(now)
	l.Spec.HolderIdentity = &r.Holder
	l.Spec.LeaseDurationSeconds = &seconds
	l.Spec.RenewTime = &renewed
	set := func(key, value string) {
		if value == "" {
			delete(l.Annotations, key)
			return
		}
		l.Annotations[key] = value
	}
	set(annotationProtocol, protocol)
	set(annotationMember, r.Member)
	set(annotationPodUID, r.PodUID)
	set(annotationPhase, string(r.Phase))
	set(annotationClaims, encodeClaims(r.Claims))
	set(annotationSeq, strconv.FormatUint(r.Seq, 10))
	set(annotationParameters, r.Fingerprint)
	set(annotationTombstones, encodeTombstones(r.Tombstones))
	set(annotationWatermarks, encodeWatermarks(r.Watermarks))
	set(annotationEvictedBy, r.EvictedBy)
}

// Decode decodes the record of a member of the given ring. For any other Lease it returns
// [ErrForeign] as err. Faults within a record are not an err: Decode returns them joined, as
// faults, together with a record that assumes the worst.
func Decode(l *coordinationv1.Lease, ringName string) (lease claim.Lease, faults error, err error) {
	if l.Labels[LabelRing] != ringName {
		return claim.Lease{}, nil, fmt.Errorf("lease %s/%s: label %s is %q instead of %q: %w", l.Namespace, l.Name, LabelRing, l.Labels[LabelRing], ringName, ErrForeign)
	}
	version, ours := l.Annotations[annotationProtocol]
	if !ours {
		return claim.Lease{}, nil, fmt.Errorf("lease %s/%s: annotation %s is missing: %w", l.Namespace, l.Name, annotationProtocol, ErrForeign)
	}
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	r := claim.Record{
		Member:      l.Annotations[annotationMember],
		PodUID:      l.Annotations[annotationPodUID],
		Phase:       claim.Phase(l.Annotations[annotationPhase]),
		Fingerprint: l.Annotations[annotationParameters],
		EvictedBy:   l.Annotations[annotationEvictedBy],
		Duration:    fallbackDuration,
	}
	if l.Spec.HolderIdentity == nil {
		fault("holderIdentity is missing: treated as void")
	} else {
		r.Holder = *l.Spec.HolderIdentity
	}
	if r.Member == "" {
		r.Member, _, _ = strings.Cut(r.Holder, "_")
		if !r.Void() {
			fault("member is missing")
		}
	}
	if seconds := l.Spec.LeaseDurationSeconds; seconds != nil && *seconds > 0 {
		r.Duration = time.Duration(*seconds) * time.Second
	} else {
		fault("leaseDurationSeconds is missing or not positive: treated as %v", fallbackDuration)
	}
	if l.Spec.RenewTime == nil {
		fault("renewTime is missing")
	}
	switch r.Phase {
	case claim.PhaseJoining, claim.PhaseActive, claim.PhaseDraining:
	default:
		fault("unknown phase %.40q: the member is not on the ring", r.Phase)
		r.Phase = claim.PhaseDraining
	}
	var parseErr error
	if r.Seq, parseErr = strconv.ParseUint(l.Annotations[annotationSeq], 10, 64); parseErr != nil {
		fault("seq: %w", parseErr)
	}
	if r.Parameters, parseErr = ring.ParseFingerprint(r.Fingerprint); parseErr != nil {
		fault("%w", parseErr)
	}
	if r.Tombstones, parseErr = decodeTombstones(l.Annotations[annotationTombstones]); parseErr != nil {
		fault("tombstones: %w", parseErr)
	}
	if version != protocol {
		fault("protocol %.40q is not %q: treated as claiming everything", version, protocol)
		r.Claims = claim.Claims{Everything: true}
	} else if r.Claims, parseErr = decodeClaims(l.Annotations[annotationClaims]); parseErr != nil {
		fault("claims: %w: treated as claiming everything", parseErr)
	}
	if r.Void() {
		r.Claims = claim.Claims{}
		errs = nil // no member acts on them
	}
	if r.Watermarks, parseErr = decodeWatermarks(l.Annotations[annotationWatermarks]); parseErr != nil {
		fault("watermarks: %w: ignored", parseErr)
	}
	return claim.Lease{
		Name:    l.Name,
		UID:     string(l.UID),
		Version: l.ResourceVersion,
		Created: l.CreationTimestamp.Time,
		Record:  r,

		Finalizers: l.Finalizers,
	}, errors.Join(errs...), nil
}

// encodeClaims returns "<fingerprint of the parameters>:<set>".
func encodeClaims(c claim.Claims) string {
	if c.Everything {
		return "everything"
	}
	if c.Set.Partitions() == 0 {
		return ""
	}
	return c.Parameters.Fingerprint() + ":" + c.Set.Encode()
}

// decodeClaims decodes the result of encodeClaims. If it returns an error, the claims
// that it returns claim everything (R2).
func decodeClaims(text string) (claim.Claims, error) {
	everything := claim.Claims{Everything: true}
	if text == "everything" {
		return everything, nil
	}
	fingerprint, set, found := strings.Cut(text, ":")
	if !found {
		return everything, fmt.Errorf("%.100q has no ':'", text)
	}
	p, err := ring.ParseFingerprint(fingerprint)
	if err != nil {
		return everything, err
	}
	s, err := ring.DecodeSet(set, p.Partitions)
	if err != nil {
		return everything, err
	}
	return claim.Claims{Parameters: p, Set: s}, nil
}

// tombstone is the JSON form of a claim.Tombstone in the annotation.
type tombstone struct {
	Lease  string `json:"lease"`
	Holder string `json:"holder"`
	Claims string `json:"claims"`
}

func encodeTombstones(tombstones []claim.Tombstone) string {
	if len(tombstones) == 0 {
		return ""
	}
	list := make([]tombstone, len(tombstones))
	for i, t := range tombstones {
		list[i] = tombstone{t.Lease, t.Holder, encodeClaims(t.Claims)}
	}
	text, _ := json.Marshal(list) // Marshal cannot fail on strings
	return string(text)
}

func decodeTombstones(text string) ([]claim.Tombstone, error) {
	if text == "" {
		return nil, nil
	}
	var list []tombstone
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, err
	}
	tombstones := make([]claim.Tombstone, 0, len(list))
	for _, t := range list {
		claims, _ := decodeClaims(t.Claims) // unreadable claims claim everything
		tombstones = append(tombstones, claim.Tombstone{Lease: t.Lease, Holder: t.Holder, Claims: claims})
	}
	return tombstones, nil
}
