// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// Config configures a [Client] and a [Watch].
type Config struct {
	// Leases is the API for the Leases in the ring's namespace.
	Leases    clientcoordinationv1.LeaseInterface
	Namespace string // of the Leases, for logs
	// Ring is the name of the ring: a valid label value.
	Ring string
	// Name is the name of this member's Lease; see [Name].
	Name string
	// Holder is this member's holder identity. The Leases that this member evicts record it.
	Holder string
	// Labels are set on the member's Lease in addition to [LabelRing]. No Lease is
	// selected by them.
	Labels map[string]string
	// Owner makes the member's Lease a dependent of the Pod, so that the garbage collector
	// deletes it with the Pod. Nil for none.
	Owner *metav1.OwnerReference
	// Acquired is when this incarnation started. It is informational.
	Acquired time.Time
	// Faults is called for each record that has faults and for each foreign Lease. It may
	// be nil.
	Faults func(lease string, err error)
}

// Selector returns the label selector for all Leases of the ring: by [LabelRing] alone
// (R1). Members that selected by different labels would not see each other, and each
// would own everything.
func (c Config) Selector() string {
	return metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: map[string]string{LabelRing: c.Ring}})
}

func (c Config) labels() map[string]string {
	labels := maps.Clone(c.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelRing] = c.Ring
	return labels
}

// maxExtra limits the labels and annotations of other clients that a member keeps, in bytes.
const maxExtra = 4 << 10

// extra returns what other clients have put on this member's Lease and the member keeps (R42).
// Everything with the prefix of this project, and the owner references, belong to the member.
func (c Config) extra(l *coordinationv1.Lease) claim.Extra {
	size := 0
	keep := func(all, own map[string]string) (kept map[string]string) {
		for _, key := range slices.Sorted(maps.Keys(all)) {
			_, mine := own[key]
			if n := len(key) + len(all[key]); !mine && !strings.HasPrefix(key, prefix) && size+n <= maxExtra {
				if kept == nil {
					kept = map[string]string{}
				}
				kept[key] = all[key]
				size += n
			}
		}
		return kept
	}
	return claim.Extra{Labels: keep(l.Labels, c.Labels), Annotations: keep(l.Annotations, nil), Finalizers: l.Finalizers}
}

// decode decodes a Lease and reports its faults.
func (c Config) decode(l *coordinationv1.Lease) (claim.Lease, error) {
	decoded, faults, err := Decode(l, c.Ring)
	if l.Name == c.Name {
		decoded.Record.Extra = c.extra(l)
	}
	if c.Faults != nil && (faults != nil || err != nil) {
		if err != nil {
			c.Faults(l.Name, err)
		} else {
			c.Faults(l.Name, faults)
		}
	}
	return decoded, err
}

// Client carries out single requests on Leases. Each method returns an error for logs and
// the outcome for the state machine.
type Client struct{ cfg Config }

// NewClient returns a client that has done nothing yet.
func NewClient(cfg Config) *Client { return &Client{cfg: cfg} }

// Get reads this member's Lease with a quorum read. If the Lease of that name is foreign,
// Get returns what [Decode] returns of it, with the outcome OK and [ErrForeign].
func (c *Client) Get(ctx context.Context) (claim.Lease, claim.Outcome, error) {
	l, err := c.cfg.Leases.Get(ctx, c.cfg.Name, metav1.GetOptions{})
	if err != nil {
		return claim.Lease{}, outcome(err), fmt.Errorf("read lease %s: %w", c.cfg.Name, err)
	}
	if l.ResourceVersion == "" {
		return claim.Lease{}, claim.Unknown, fmt.Errorf("read lease %s: %w", c.cfg.Name, errNoVersion)
	}
	decoded, err := c.cfg.decode(l)
	return decoded, claim.OK, err
}

// errNoVersion is the error of a server without the versions on which each write is conditional.
var errNoVersion = errors.New("it has no resourceVersion: this is no API server. In unit tests, use a client of package shardtest instead of client-go's fake clientset")

// Create creates this member's Lease.
func (c *Client) Create(ctx context.Context, r claim.Record) (claim.Lease, claim.Outcome, error) {
	l := c.own(r, "", "")
	created, err := c.cfg.Leases.Create(ctx, l, metav1.CreateOptions{})
	if err != nil {
		return claim.Lease{}, outcome(err), fmt.Errorf("create lease %s: %w", c.cfg.Name, err)
	}
	if err := altered(created, l); err != nil {
		return claim.Lease{}, claim.Unknown, fmt.Errorf("create lease %s: %w", c.cfg.Name, err)
	}
	return c.written(created, r), claim.OK, nil
}

// written returns this member's Lease with the record as the server has stored it.
func (c *Client) written(l *coordinationv1.Lease, r claim.Record) claim.Lease {
	r.Extra = c.cfg.extra(l)
	return claim.Lease{Name: l.Name, UID: string(l.UID), Version: l.ResourceVersion, Created: l.CreationTimestamp.Time, Record: r}
}

// Update writes this member's Lease if it has the given UID and resourceVersion. A record
// without a holder voids it.
func (c *Client) Update(ctx context.Context, uid, version string, r claim.Record) (claim.Lease, claim.Outcome, error) {
	l := c.own(r, uid, version)
	updated, err := c.cfg.Leases.Update(ctx, l, metav1.UpdateOptions{})
	if err != nil {
		return claim.Lease{}, outcome(err), fmt.Errorf("renew lease %s: %w", c.cfg.Name, err)
	}
	if updated.DeletionTimestamp != nil && len(updated.Finalizers) == 0 {
		// The update removed the last finalizer of a Lease that was being deleted: the API
		// server has deleted it, and answers with the object of the request.
		return claim.Lease{}, claim.Unknown, fmt.Errorf("renew lease %s: the update deleted it, because it was being deleted and had no more finalizers", c.cfg.Name)
	}
	if err := altered(updated, l); err != nil {
		return claim.Lease{}, claim.Unknown, fmt.Errorf("renew lease %s: %w", c.cfg.Name, err)
	}
	return c.written(updated, r), claim.OK, nil
}

// ErrAltered is the error of a write that the server has stored with another record than the
// one that was sent: an admission webhook or policy has changed it. Peers cannot read such a
// record: to them, the member is silent. The write therefore confirms nothing (R87).
var ErrAltered = errors.New("an admission webhook or policy changes what this member writes to Leases, so that no other member can read it: exclude the Leases of this ring from that webhook or policy")

// altered returns an error that wraps ErrAltered if the server has stored another record than
// the one that was sent.
func altered(stored, sent *coordinationv1.Lease) error {
	if stored.ResourceVersion == "" {
		return errNoVersion
	}
	is, was := stored.Labels[LabelRing], sent.Labels[LabelRing]
	if is != was {
		return fmt.Errorf("label %s is %.100q instead of %q: %w", LabelRing, is, was, ErrAltered)
	}
	for _, key := range append(checked[:len(checked):len(checked)], AnnotationChecksum) {
		if is, was := stored.Annotations[key], sent.Annotations[key]; is != was {
			return fmt.Errorf("annotation %s is %.100q instead of %.100q: %w", key, is, was, ErrAltered)
		}
	}
	if is, was := valueOf(stored.Spec.HolderIdentity), valueOf(sent.Spec.HolderIdentity); is != was {
		return fmt.Errorf("spec.holderIdentity is %.100q instead of %q: %w", is, was, ErrAltered)
	}
	if is, was := valueOf(stored.Spec.LeaseDurationSeconds), valueOf(sent.Spec.LeaseDurationSeconds); is != was {
		return fmt.Errorf("spec.leaseDurationSeconds is %d instead of %d: %w", is, was, ErrAltered)
	}
	return nil
}

// valueOf returns what a pointer points to, and the zero value for nil.
func valueOf[T any](p *T) (value T) {
	if p != nil {
		value = *p
	}
	return value
}

// Delete deletes a Lease if it has the given UID and resourceVersion.
func (c *Client) Delete(ctx context.Context, name, uid, version string) (claim.Outcome, error) {
	typed := types.UID(uid)
	err := c.cfg.Leases.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &typed, ResourceVersion: &version}})
	if err != nil {
		return outcome(err), fmt.Errorf("delete lease %s: %w", name, err)
	}
	return claim.OK, nil
}

// List reads all Leases of the ring with a quorum read. Foreign ones are left out.
func (c *Client) List(ctx context.Context) ([]claim.Lease, claim.Outcome, error) {
	list, err := c.cfg.Leases.List(ctx, metav1.ListOptions{LabelSelector: c.cfg.Selector()})
	if err != nil {
		return nil, outcome(err), fmt.Errorf("list leases: %w", err)
	}
	leases := make([]claim.Lease, 0, len(list.Items))
	for i := range list.Items {
		if decoded, err := c.cfg.decode(&list.Items[i]); err == nil {
			leases = append(leases, decoded)
		}
	}
	return leases, claim.OK, nil
}

// Evict voids another member's Lease if it still has the resourceVersion that this member
// has seen (R23). It sends one update (R27), because a read before it would double the
// requests at the worst moment, when many members have died at once.
//
// The update replaces the whole Lease with a minimal record, so that a Lease whose
// annotations have reached the size limit can be evicted too. It keeps the owner
// reference, so that the garbage collector deletes the Lease with its Pod even if no
// member is left to delete it; and it keeps finalizers, which belong to other clients.
// Labels and annotations of other clients are lost.
func (c *Client) Evict(ctx context.Context, e claim.EvictLease) (claim.Lease, claim.Outcome, error) {
	if e.UID == "" || e.Version == "" {
		// Without them the update would void the Lease of any holder, or create a Lease.
		return claim.Lease{}, claim.Conflict, fmt.Errorf("evict the holder of lease %s: UID %q and version %q must be known", e.Name, e.UID, e.Version)
	}
	l := c.void(e)
	updated, err := c.cfg.Leases.Update(ctx, l, metav1.UpdateOptions{})
	if err != nil {
		return claim.Lease{}, outcome(err), fmt.Errorf("evict the holder of lease %s: %w", e.Name, err)
	}
	if err := altered(updated, l); err != nil {
		return claim.Lease{}, claim.Unknown, fmt.Errorf("evict the holder of lease %s: %w", e.Name, err)
	}
	decoded, _ := c.cfg.decode(updated)
	return decoded, claim.OK, nil
}

// void returns the Lease as an eviction leaves it.
func (c *Client) void(e claim.EvictLease) *coordinationv1.Lease {
	holder := ""
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: e.Name, UID: types.UID(e.UID), ResourceVersion: e.Version, Finalizers: e.Finalizers,
			Labels:      c.cfg.labels(), // members of earlier versions select by all of them
			Annotations: map[string]string{annotationProtocol: protocol, annotationEvictedBy: c.cfg.Holder, annotationVoid: e.UID},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder},
	}
	if e.Member != "" {
		l.Annotations[annotationMember] = e.Member
	}
	if e.Member != "" && e.PodUID != "" {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: e.Member, UID: types.UID(e.PodUID)}}
	}
	l.Annotations[AnnotationChecksum] = Checksum(l)
	return l
}

// own returns this member's Lease with the record. A write replaces the whole Lease: of what
// other clients have put on it, only r.Extra survives.
func (c *Client) own(r claim.Record, uid, version string) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Name: c.cfg.Name, UID: types.UID(uid), ResourceVersion: version,
		Labels: c.cfg.labels(), Annotations: maps.Clone(r.Extra.Annotations), Finalizers: r.Extra.Finalizers,
	}}
	maps.Copy(l.Labels, r.Extra.Labels)
	if c.cfg.Owner != nil {
		l.OwnerReferences = []metav1.OwnerReference{*c.cfg.Owner}
	}
	acquired := metav1.NewMicroTime(c.cfg.Acquired)
	l.Spec.AcquireTime = &acquired
	encode(l, r, time.Now())
	return l
}

// outcome classifies an error by what it makes certain. All other errors are Unknown: that
// only costs one more read.
func outcome(err error) claim.Outcome {
	switch {
	case err == nil:
		return claim.OK
	case apierrors.IsConflict(err):
		return claim.Conflict
	case apierrors.IsNotFound(err):
		return claim.NotFound
	case apierrors.IsAlreadyExists(err):
		return claim.Exists
	case refused(err):
		return claim.Refused
	}
	return claim.Unknown
}

// refused reports whether the server has not carried out a request and will not: it has
// decided so before it reached its database, or there was no connection to send the request.
func refused(err error) bool {
	var network *net.OpError
	return apierrors.IsTooManyRequests(err) || apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) ||
		apierrors.IsBadRequest(err) || apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err) ||
		errors.As(err, &network) && network.Op == "dial"
}

// RetryAfter returns how long the server asks to wait before the next attempt, 0 if it does
// not.
func RetryAfter(err error) time.Duration {
	seconds, _ := apierrors.SuggestsClientDelay(err)
	return time.Duration(seconds) * time.Second
}
