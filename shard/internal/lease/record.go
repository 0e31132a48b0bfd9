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
	"unicode/utf8"

	"github.com/zeebo/xxh3"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// LabelRing is the label that names the ring to which a Lease belongs.
const LabelRing = prefix + "ring"

// prefix begins the labels and annotations of this project.
const prefix = "operator-scaling.tom-ludwig.github.io/"

// AnnotationChecksum is the annotation with the checksum of a record.
const AnnotationChecksum = prefix + "checksum"

// The annotations of a record.
const (
	annotationProtocol   = prefix + "protocol"
	annotationMember     = prefix + "member"
	annotationPodUID     = prefix + "pod-uid"
	annotationPhase      = prefix + "phase"
	annotationClaims     = prefix + "claims"
	annotationSeq        = prefix + "seq"
	annotationParameters = prefix + "parameters"
	annotationTombstones = prefix + "tombstones"
	annotationWatched    = prefix + "watched"
	annotationNewcomer   = prefix + "newcomer"
	annotationLongest    = prefix + "longest-duration"
	annotationEvictedBy  = prefix + "evicted-by"
	annotationWatermarks = prefix + "watermarks"
	annotationKinds      = prefix + "kinds"
	// annotationVoid is the UID of the Lease, on a void one: its record does not count on the
	// Lease of a later member of the same name.
	annotationVoid = prefix + "void-uid"
)

// checked are the annotations that the checksum covers: those that other members act on.
// Watermarks only delay them (R78), and kinds are only reported (R88).
var checked = []string{
	annotationProtocol, annotationMember, annotationPodUID, annotationPhase, annotationClaims,
	annotationSeq, annotationParameters, annotationTombstones, annotationWatched, annotationNewcomer,
	annotationLongest, annotationEvictedBy, annotationVoid,
}

// protocol is the version of the rules by which members read each other's claims.
const protocol = "1"

// The limits of the values on a Lease, in bytes. A record that exceeds one was edited. A
// member publishes far less: see the limits in package claim.
const (
	// MaxUID is the limit for the UID of a Pod.
	MaxUID = 64

	maxMember     = 253 // the limit for the name of a Pod
	maxHolder     = 300 // a Pod name, "_" and the UUID of an incarnation
	maxTombstones = 32 << 10

	// MaxKinds is the limit for the kinds that a member watches.
	MaxKinds = 1 << 10
)

// ErrForeign is the error for a Lease that is not the record of a member of this ring.
var ErrForeign = errors.New("not a Lease of this ring")

// errEdited is the fault of a record that is not as a member wrote it.
var errEdited = errors.New("the record was edited, or is not complete: it claims everything")

// encode writes the record to the Lease and keeps its name and metadata. now is the wall
// clock.
func encode(l *coordinationv1.Lease, r claim.Record, now time.Time) {
	if l.Annotations == nil {
		l.Annotations = map[string]string{}
	}
	l.Spec.HolderIdentity = &r.Holder
	if r.Duration > 0 {
		seconds := int32(min(math.Ceil(r.Duration.Seconds()), claim.MaxLeaseDuration.Seconds()))
		l.Spec.LeaseDurationSeconds = &seconds
	}
	renewed := metav1.NewMicroTime(now)
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
	if len(r.PodUID) <= MaxUID {
		set(annotationPodUID, r.PodUID)
	}
	set(annotationPhase, string(r.Phase))
	set(annotationClaims, encodeClaims(r.Claims))
	set(annotationSeq, strconv.FormatUint(r.Seq, 10))
	set(annotationParameters, r.Fingerprint)
	set(annotationTombstones, encodeTombstones(r.Tombstones))
	set(annotationWatched, r.Watched)
	set(annotationNewcomer, string(r.Newcomer))
	set(annotationLongest, encodeDuration(r.Longest))
	set(annotationWatermarks, encodeWatermarks(r.Watermarks))
	set(annotationKinds, r.Kinds)
	set(annotationEvictedBy, r.EvictedBy)
	if r.Holder == "" {
		set(annotationVoid, string(l.UID))
	}
	l.Annotations[AnnotationChecksum] = Checksum(l)
}

// Checksum returns the checksum of what other members act on. It detects edits, and is no
// protection against a forger.
func Checksum(l *coordinationv1.Lease) string {
	h := xxh3.New()
	add := func(value string) { fmt.Fprintf(h, "%d:%s,", len(value), value) }
	add(valueOf(l.Spec.HolderIdentity))
	add(strconv.Itoa(int(valueOf(l.Spec.LeaseDurationSeconds))))
	for _, key := range checked {
		add(l.Annotations[key])
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// Decode decodes the record of a member of the given ring. It returns [ErrForeign] as err
// for a Lease of another ring, and for one without any sign of a member (R50),
// together with what is known of it: an edited record. Faults within a record are not an
// err: Decode returns them joined, as faults, together with a record that assumes the
// worst.
func Decode(l *coordinationv1.Lease, ringName string) (lease claim.Lease, faults error, err error) {
	lease = claim.Lease{
		Name:    l.Name,
		UID:     string(l.UID),
		Version: l.ResourceVersion,
		Created: l.CreationTimestamp.Time,

		Finalizers: l.Finalizers,
	}
	if l.Labels[LabelRing] != ringName {
		err = fmt.Errorf("lease %s/%s: label %s is %.100q instead of %q: %w", l.Namespace, l.Name, LabelRing, l.Labels[LabelRing], ringName, ErrForeign)
	} else if !hasRecord(l) && !namesMember(l) {
		err = fmt.Errorf("lease %s/%s: it has no annotation with the prefix %s: %w", l.Namespace, l.Name, prefix, ErrForeign)
	}
	lease.Record, faults = decodeRecord(l)
	return lease, faults, err
}

func hasRecord(l *coordinationv1.Lease) bool {
	for key := range l.Annotations {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// namesMember reports whether a Lease without a record has the name of its holder's Pod, or of
// the Pod that owns it, or one that ends in the hash of such a name: a member has held it, and
// another client has removed the record.
func namesMember(l *coordinationv1.Lease) bool {
	if hashed.MatchString(l.Name) {
		return true
	}
	if l.Spec.HolderIdentity != nil {
		if pod, _, ok := strings.Cut(*l.Spec.HolderIdentity, "_"); ok && pod != "" && strings.HasSuffix(l.Name, pod) {
			return true
		}
	}
	for _, owner := range l.OwnerReferences {
		if owner.Kind == "Pod" && owner.Name != "" && strings.HasSuffix(l.Name, owner.Name) {
			return true
		}
	}
	return false
}

// decodeRecord decodes the record on a Lease. If the record is not as a member wrote it,
// nothing on it counts: only the names are kept, for logs and for the member whose Lease it
// is.
func decodeRecord(l *coordinationv1.Lease) (claim.Record, error) {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	text := func(what, value string, limit int) string {
		if len(value) > limit || !utf8.ValidString(value) {
			fault("%s: %.100q is not valid", what, value)
			return strings.ToValidUTF8(value[:min(len(value), limit)], "")
		}
		return value
	}
	holder := ""
	if l.Spec.HolderIdentity != nil {
		holder = *l.Spec.HolderIdentity
	}
	r := claim.Record{
		Holder:    text("holderIdentity", holder, maxHolder),
		Member:    text("member", l.Annotations[annotationMember], maxMember),
		PodUID:    text("pod-uid", l.Annotations[annotationPodUID], MaxUID),
		EvictedBy: text("evicted-by", l.Annotations[annotationEvictedBy], maxHolder),
		Phase:     claim.Phase(l.Annotations[annotationPhase]),
		Watched:   l.Annotations[annotationWatched],
		Newcomer:  claim.Newcomer(l.Annotations[annotationNewcomer]),
	}
	edited := errs != nil
	for _, what := range []struct {
		name   string
		faulty bool
	}{
		{"protocol", l.Annotations[annotationProtocol] != protocol},
		{"checksum", l.Annotations[AnnotationChecksum] != Checksum(l)},
		{"tombstones", len(l.Annotations[annotationTombstones]) > maxTombstones},
		{"watched", r.Watched != "" && !claim.ValidVersion(r.Watched) || len(r.Watched) > maxVersion},
	} {
		if what.faulty {
			fault("%s: %.100q", what.name, l.Annotations[prefix+what.name])
			edited = true
		}
	}
	if !edited {
		// What a member wrote, and this version perhaps cannot read.
		if seconds := l.Spec.LeaseDurationSeconds; seconds != nil && *seconds > 0 {
			r.Duration = min(time.Duration(*seconds)*time.Second, claim.MaxLeaseDuration)
		}
		r.Fingerprint = l.Annotations[annotationParameters]
		var err error
		decode := func(what string, err error) {
			if err != nil {
				fault("%s: %w", what, err)
			}
		}
		r.Claims, err = decodeClaims(l.Annotations[annotationClaims])
		decode("claims", err)
		r.Seq, err = strconv.ParseUint(l.Annotations[annotationSeq], 10, 64)
		decode("seq", err)
		r.Parameters, err = ring.ParseFingerprint(r.Fingerprint)
		decode("parameters", err)
		r.Tombstones, err = decodeTombstones(l.Annotations[annotationTombstones])
		decode("tombstones", err)
		r.Longest, err = decodeDuration(l.Annotations[annotationLongest])
		decode("longest-duration", err)
		switch {
		case r.EvictedBy != "" && r.Holder == "":
			r.Claims, errs = claim.Claims{}, nil // its holder's values are gone
			r.Phase = claim.PhaseDraining
		case r.Holder == "" && (r.Phase != claim.PhaseDraining || !r.Claims.Empty()):
			fault("holderIdentity is missing, but the Lease was not released and not evicted")
			edited = true
		case r.Member == "" || r.EvictedBy != "" || !knownPhase(r.Phase):
			fault("member %q, phase %.40q, evicted-by %q", r.Member, r.Phase, r.EvictedBy)
			edited = true
		case r.Holder == "":
			r.Claims = claim.Claims{}
		}
		r.Copied = r.Holder == "" && !edited && l.Annotations[annotationVoid] != string(l.UID)
		if r.Watermarks, err = decodeWatermarks(l.Annotations[annotationWatermarks]); err != nil {
			fault("watermarks: %w: ignored", err)
		}
		if r.Kinds = l.Annotations[annotationKinds]; len(r.Kinds) > MaxKinds || !utf8.ValidString(r.Kinds) {
			fault("kinds: %.100q: ignored", r.Kinds)
			r.Kinds = ""
		}
	}
	if edited {
		if r.PodUID == "" {
			r.PodUID = podOf(l)
		}
		if r.Member == "" {
			r.Member, _, _ = strings.Cut(r.Holder, "_")
		}
		errs = append([]error{errEdited}, errs...)
		r = claim.Record{
			Edited: true, Holder: r.Holder, Member: r.Member, PodUID: r.PodUID,
			Phase: claim.PhaseDraining, Claims: claim.Claims{Everything: true},
		}
	}
	return r, errors.Join(errs...)
}

func knownPhase(p claim.Phase) bool {
	return p == claim.PhaseJoining || p == claim.PhaseActive || p == claim.PhaseDraining
}

// podOf returns the UID of the Pod that owns the Lease, "" if there is none.
func podOf(l *coordinationv1.Lease) string {
	for _, owner := range l.OwnerReferences {
		if owner.Kind == "Pod" && len(owner.UID) <= MaxUID && utf8.ValidString(string(owner.UID)) {
			return string(owner.UID)
		}
	}
	return ""
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

// encodeDuration returns the duration in milliseconds, rounded up, "" for 0.
func encodeDuration(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return strconv.FormatInt(milliseconds(d), 10)
}

// decodeDuration decodes the result of encodeDuration.
func decodeDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return capped(n), err
}

// milliseconds rounds up: a reader must not count less than the writer (R29).
func milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

func capped(milliseconds uint64) time.Duration {
	return time.Duration(min(milliseconds, uint64(claim.MaxLeaseDuration/time.Millisecond))) * time.Millisecond
}

// tombstone is the JSON form of a claim.Tombstone in the annotation. Times are in
// milliseconds.
type tombstone struct {
	UID       string `json:"uid,omitempty"`
	Holder    string `json:"holder,omitempty"`
	Seq       uint64 `json:"seq,omitempty"`
	Claims    string `json:"claims"`
	Duration  uint64 `json:"duration"`
	Remaining uint64 `json:"remaining"`
}

func encodeTombstones(tombstones []claim.Tombstone) string {
	if len(tombstones) == 0 {
		return ""
	}
	list := make([]tombstone, len(tombstones))
	for i, t := range tombstones {
		list[i] = tombstone{t.UID, t.Holder, t.Seq, encodeClaims(t.Claims), uint64(milliseconds(t.Duration)), uint64(milliseconds(t.Remaining))}
	}
	text, _ := json.Marshal(list) // Marshal cannot fail on strings and numbers
	return string(text)
}

// decodeTombstones decodes the result of encodeTombstones. If it returns an error, the one
// tombstone that it returns claims everything for the longest time.
func decodeTombstones(text string) ([]claim.Tombstone, error) {
	if text == "" {
		return nil, nil
	}
	var list []tombstone
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		worst := claim.Tombstone{Claims: claim.Claims{Everything: true}, Duration: claim.MaxLeaseDuration, Remaining: claim.MaxLeaseDuration}
		return []claim.Tombstone{worst}, err
	}
	tombstones := make([]claim.Tombstone, 0, len(list))
	for _, t := range list {
		claims, _ := decodeClaims(t.Claims) // unreadable claims claim everything
		tombstones = append(tombstones, claim.Tombstone{
			UID: t.UID, Holder: t.Holder, Seq: t.Seq, Claims: claims, Duration: capped(t.Duration), Remaining: capped(t.Remaining),
		})
	}
	return tombstones, nil
}
