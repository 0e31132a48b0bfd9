// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package leaseserver

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
)

// The limits on the size of a Lease: that of kube-apiserver for a request, and that of etcd.
const (
	maxRequest = 3 << 20
	maxStored  = 3 << 19
)

var (
	resource = coordinationv1.Resource("leases")
	kind     = coordinationv1.SchemeGroupVersion.WithKind("Lease").GroupKind()
)

// Leases is an API server for Leases. Its methods return errors of package
// k8s.io/apimachinery/pkg/api/errors, and copies. Create it with [NewLeases].
type Leases struct {
	store     *Store[*coordinationv1.Lease]
	deletedAt map[string]metav1.Time // by the version of the deletion
}

// NewLeases returns a server without Leases. newUID returns a unique UID.
func NewLeases(newUID func() string) *Leases {
	s := NewStore[*coordinationv1.Lease]()
	s.Revision, s.NewUID = 1, newUID
	return &Leases{s, map[string]metav1.Time{}}
}

func key(namespace, name string) string { return namespace + "/" + name }

// Get reads a Lease.
func (s *Leases) Get(namespace, name string) (*coordinationv1.Lease, error) {
	o, err := s.store.Get(key(namespace, name))
	return answer(o, name, err)
}

// List returns the Leases of a namespace that a selector selects, sorted by name. nil
// selects all.
func (s *Leases) List(namespace string, selector labels.Selector) *coordinationv1.LeaseList {
	list := &coordinationv1.LeaseList{ListMeta: metav1.ListMeta{ResourceVersion: s.store.Version()}}
	selects := selection(namespace, selector)
	for _, o := range s.store.List() {
		if selects(o.Value) {
			list.Items = append(list.Items, *lease(o))
		}
	}
	return list
}

// Create creates a Lease.
func (s *Leases) Create(l *coordinationv1.Lease, now time.Time) (*coordinationv1.Lease, error) {
	if err := validate(l); err != nil {
		return nil, err
	}
	o, err := s.store.Create(key(l.Namespace, l.Name), now, content(l))
	return answer(o, l.Name, err)
}

// Update replaces a Lease at the version that it names, and at the UID if it names one.
// Without a UID, it creates a Lease that does not exist.
func (s *Leases) Update(l *coordinationv1.Lease, now time.Time) (*coordinationv1.Lease, error) {
	name := key(l.Namespace, l.Name)
	old, err := s.store.Get(name)
	switch {
	case err != nil && l.UID == "":
		return s.Create(l, now)
	case err == nil && l.ResourceVersion == "":
		return nil, apierrors.NewInvalid(kind, l.Name, field.ErrorList{field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update")})
	}
	c := At(string(l.UID), l.ResourceVersion)
	if l.UID == "" {
		c.UID = nil
	}
	if err != nil || !old.Meets(c) {
		return nil, toAPIError(ErrConflict, l.Name)
	}
	if err := validate(l); err != nil {
		return nil, err
	}
	update := content(l)
	if equality.Semantic.DeepEqual(update, old.Value) {
		return lease(old), nil // an update that changes nothing is not written
	}
	o, err := s.store.Update(name, c, update)
	return answer(o, l.Name, err)
}

// Delete deletes a Lease if the preconditions hold. nil sets none.
func (s *Leases) Delete(namespace, name string, p *metav1.Preconditions, now time.Time) error {
	var c Condition
	if p != nil {
		c = Condition{(*string)(p.UID), p.ResourceVersion}
	}
	if err := s.store.Delete(key(namespace, name), c); err != nil {
		return toAPIError(err, name)
	}
	s.deletedAt[s.store.Version()] = metav1.NewTime(now)
	return nil
}

// Put creates or overwrites a Lease without any condition or validation.
func (s *Leases) Put(l *coordinationv1.Lease, now time.Time) {
	if _, err := s.store.Update(key(l.Namespace, l.Name), Condition{}, content(l)); err != nil {
		_, _ = s.store.Create(key(l.Namespace, l.Name), now, content(l))
	}
}

// Compact drops the history: a watch from an earlier version gets [http.StatusGone].
func (s *Leases) Compact() { s.store.Compact() }

// History returns every state of every Lease since the last compaction, in the order of the
// writes. A deletion is an entry with a deletionTimestamp.
func (s *Leases) History() []coordinationv1.Lease {
	var history []coordinationv1.Lease
	for n := s.store.First(); n < s.store.End(); n++ {
		event, o, _ := s.store.Change(n).Event(func(*coordinationv1.Lease) bool { return true })
		l := lease(o)
		if event == Deleted {
			l.DeletionTimestamp = new(s.deletedAt[l.ResourceVersion])
		}
		history = append(history, *l)
	}
	return history
}

// Cursor is the position of one watch.
type Cursor struct {
	server  *Leases
	selects func(*coordinationv1.Lease) bool
	next    int
	pending []watch.Event
}

// Watch returns a watch of the Leases of a namespace that a selector selects. It begins
// after a version. With "" or "0" it begins with the present Leases, and with
// sendInitialEvents it then shows a bookmark.
func (s *Leases) Watch(namespace string, selector labels.Selector, version string, sendInitialEvents bool) *Cursor {
	c := &Cursor{server: s, selects: selection(namespace, selector), next: s.store.End()}
	if version != "" && version != "0" && !sendInitialEvents {
		next, err := s.store.After(version)
		if err != nil {
			c.pending = []watch.Event{expired(err)}
			return c
		}
		c.next = next
		return c
	}
	for _, l := range s.List(namespace, selector).Items {
		c.pending = append(c.pending, watch.Event{Type: watch.Added, Object: &l})
	}
	if sendInitialEvents {
		c.pending = append(c.pending, watch.Event{Type: watch.Bookmark, Object: &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: s.store.Version(), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		}}})
	}
	return c
}

// Events returns the events since the last call.
func (c *Cursor) Events() []watch.Event {
	events := c.pending
	c.pending = nil
	if c.next < c.server.store.First() {
		return []watch.Event{expired(ErrExpired)}
	}
	for ; c.next < c.server.store.End(); c.next++ {
		if event, o, ok := c.server.store.Change(c.next).Event(c.selects); ok {
			events = append(events, watch.Event{Type: watch.EventType(event), Object: lease(o)})
		}
	}
	return events
}

func expired(err error) watch.Event {
	status := apierrors.NewResourceExpired(err.Error()).Status()
	return watch.Event{Type: watch.Error, Object: &status}
}

// selection returns what a request selects. No namespace means all, a nil selector all labels.
func selection(namespace string, selector labels.Selector) func(*coordinationv1.Lease) bool {
	return func(l *coordinationv1.Lease) bool {
		return (namespace == "" || l.Namespace == namespace) && (selector == nil || selector.Matches(labels.Set(l.Labels)))
	}
}

// content returns a copy without what the server sets.
func content(l *coordinationv1.Lease) *coordinationv1.Lease {
	l = l.DeepCopy()
	l.UID, l.ResourceVersion, l.CreationTimestamp, l.DeletionTimestamp = "", "", metav1.Time{}, nil
	return l
}

func lease(o Object[*coordinationv1.Lease]) *coordinationv1.Lease {
	l := o.Value.DeepCopy()
	l.UID, l.ResourceVersion, l.CreationTimestamp = types.UID(o.UID), o.Version, metav1.NewTime(o.Created)
	return l
}

func answer(o Object[*coordinationv1.Lease], name string, err error) (*coordinationv1.Lease, error) {
	if err != nil {
		return nil, toAPIError(err, name)
	}
	return lease(o), nil
}

func toAPIError(err error, name string) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return apierrors.NewNotFound(resource, name)
	case errors.Is(err, ErrExists):
		return apierrors.NewAlreadyExists(resource, name)
	}
	return apierrors.NewConflict(resource, name, err)
}

// validate is kube-apiserver's validation of a Lease, without the fields of coordinated
// leader election, and the limits on its size.
func validate(l *coordinationv1.Lease) error {
	switch size := l.Size(); {
	case size > maxRequest:
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxRequest))
	case size > maxStored:
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: "etcdserver: request is too large"}}
	}
	errs := validation.ValidateObjectMeta(&l.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	if d := l.Spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := l.Spec.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(kind, l.Name, errs)
	}
	return nil
}
