// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"fmt"
	"maps"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
)

// Config is what a [Client] and a [Watch] need to know.
type Config struct {
	// Leases is the API of the namespace that the ring lives in.
	Leases clientcoordinationv1.LeaseInterface
	// Ring names the ring: a valid label value.
	Ring string
	// Name is the name of the own Lease; see [Name].
	Name string
	// Holder is voided in the name of: it stands on the Leases that this member evicts.
	Holder string
	// Labels are put on the member's Lease in addition to [LabelRing]. No Lease is
	// selected by them.
	Labels map[string]string
	// Owner makes the own Lease a dependent of the Pod, so that it is collected
	// with it. Nil for none.
	Owner *metav1.OwnerReference
	// Acquired is when this incarnation started, for people who read the Lease.
	Acquired time.Time
	// Faults is told of each record that has faults and of each foreign Lease. Nil for nobody.
	Faults func(lease string, err error)
}

// Selector returns the label selector for all Leases of the ring: by [LabelRing] alone.
// Members that selected by different labels would not see each other, and each would
// own everything.
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

// decode reads a Lease and tells of its faults.
func (c Config) decode(l *coordinationv1.Lease) (claim.Lease, error) {
	decoded, faults, err := Decode(l, c.Ring)
	if c.Faults != nil && (faults != nil || err != nil) {
		if err != nil {
			c.Faults(l.Name, err)
		} else {
			c.Faults(l.Name, faults)
		}
	}
	return decoded, err
}

// Client carries out single requests on Leases. Each method returns, beside the
// error for people, what the state machine is to conclude from it.
type Client struct{ cfg Config }

// NewClient returns a client that has done nothing yet.
func NewClient(cfg Config) *Client { return &Client{cfg: cfg} }

// Get reads the own Lease with a quorum read. A Lease of that name that is no
// record of this ring is returned with the outcome OK and [ErrForeign]; only its
// Name, UID, Version and Holder are set.
func (c *Client) Get(ctx context.Context) (claim.Lease, claim.Outcome, error) {
	l, err := c.cfg.Leases.Get(ctx, c.cfg.Name, metav1.GetOptions{})
	if err != nil {
		return claim.Lease{}, outcome(err), fmt.Errorf("read lease %s: %w", c.cfg.Name, err)
	}
	decoded, err := c.cfg.decode(l)
	if err != nil {
		decoded = claim.Lease{Name: l.Name, UID: string(l.UID), Version: l.ResourceVersion, Finalizers: l.Finalizers}
		if l.Spec.HolderIdentity != nil {
			decoded.Record.Holder = *l.Spec.HolderIdentity
		}
		decoded.Record.Claims.Everything = true
		decoded.Record.Duration = fallbackDuration
	}
	return decoded, claim.OK, err
}

// Create creates the own Lease.
func (c *Client) Create(ctx context.Context, r claim.Record) (claim.Lease, claim.Outcome, error) {
	l := c.own(r)
	created, err := c.cfg.Leases.Create(ctx, l, metav1.CreateOptions{})
	if err != nil {
		return claim.Lease{}, outcome(err), fmt.Errorf("create lease %s: %w", c.cfg.Name, err)
	}
	return claim.Lease{Name: created.Name, UID: string(created.UID), Version: created.ResourceVersion, Created: created.CreationTimestamp.Time, Record: r}, claim.OK, nil
}

// Update writes the own Lease if it is at the given version. A record without a
// holder voids it.
func (c *Client) Update(ctx context.Context, uid, version string, r claim.Record) (claim.Lease, claim.Outcome, error) {
	l := c.own(r)
	l.UID, l.ResourceVersion = types.UID(uid), version
	updated, err := c.cfg.Leases.Update(ctx, l, metav1.UpdateOptions{})
	if err != nil {
		return claim.Lease{}, outcome(err), fmt.Errorf("renew lease %s: %w", c.cfg.Name, err)
	}
	return claim.Lease{Name: updated.Name, UID: string(updated.UID), Version: updated.ResourceVersion, Created: updated.CreationTimestamp.Time, Record: r}, claim.OK, nil
}

// Delete deletes a Lease if it is at the given version.
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

// Evict voids another member's Lease if it is at the version that was seen: with one
// update, because a read first would double the requests at the worst moment, when many
// members have died at once.
//
// The update replaces the whole Lease, and only what the void Lease needs is written: a
// Lease that is full to the limit of its annotations can be evicted too. What is kept:
// the owner, so that the garbage collector takes the Lease with its Pod even if no
// member is left that would delete it; and finalizers, which belong to others. Labels
// and annotations that others have put on the Lease are lost, as they are with each
// renewal of its holder.
func (c *Client) Evict(ctx context.Context, e claim.EvictLease) (claim.Lease, claim.Outcome, error) {
	if e.UID == "" || e.Version == "" {
		// Without them the update would hit any holder, or create a Lease.
		return claim.Lease{}, claim.Conflict, fmt.Errorf("evict the holder of lease %s: UID %q and version %q must be known", e.Name, e.UID, e.Version)
	}
	updated, err := c.cfg.Leases.Update(ctx, c.void(e), metav1.UpdateOptions{})
	if err != nil {
		return claim.Lease{}, outcome(err), fmt.Errorf("evict the holder of lease %s: %w", e.Name, err)
	}
	decoded, err := c.cfg.decode(updated)
	if err != nil {
		decoded = claim.Lease{Name: e.Name, UID: e.UID, Version: updated.ResourceVersion}
	}
	return decoded, claim.OK, nil
}

// The longest name of a Pod, and more than any UID has. What is longer was put there by
// somebody else and is not kept.
const (
	maxPodName = 253
	maxUID     = 128
)

// void returns the Lease as an eviction leaves it.
func (c *Client) void(e claim.EvictLease) *coordinationv1.Lease {
	holder := ""
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: e.Name, UID: types.UID(e.UID), ResourceVersion: e.Version, Finalizers: e.Finalizers,
			Labels:      c.cfg.labels(), // members of earlier versions select by all of them
			Annotations: map[string]string{annotationProtocol: protocol, annotationEvictedBy: c.cfg.Holder},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder},
	}
	if e.Member == "" || len(e.Member) > maxPodName {
		return l
	}
	l.Annotations[annotationMember] = e.Member
	if e.PodUID != "" && len(e.PodUID) <= maxUID {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: e.Member, UID: types.UID(e.PodUID)}}
	}
	return l
}

// own returns the own Lease with the record. It is written whole: nothing that
// anybody else put on it survives.
func (c *Client) own(r claim.Record) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: c.cfg.Name, Labels: c.cfg.labels()}}
	if c.cfg.Owner != nil {
		l.OwnerReferences = []metav1.OwnerReference{*c.cfg.Owner}
	}
	acquired := metav1.NewMicroTime(c.cfg.Acquired)
	l.Spec.AcquireTime = &acquired
	encode(l, r, time.Now())
	return l
}

// outcome classes an error by what is certain. Everything else, refusals
// included, is Unknown: it costs one more read.
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
	}
	return claim.Unknown
}
