// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package leaseserver_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/tom-ludwig/operator-scaling/shard/internal/leaseserver"
)

var now = time.Unix(1_700_000_000, 5)

func newServer() *leaseserver.Leases {
	uids := 0
	return leaseserver.NewLeases(func() string { uids++; return fmt.Sprint("uid-", uids) })
}

func newLease(change func(*coordinationv1.Lease)) *coordinationv1.Lease {
	holder, duration := "a", int32(15)
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x", Labels: map[string]string{"ring": "foo"}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &duration},
	}
	change(l)
	return l
}

// What kube-apiserver and etcd refuse, at a create as at an update.
func TestInvalidLeasesAreRefused(t *testing.T) {
	empty, zero, negative := "", int32(0), int32(-1)
	invalid := apierrors.IsInvalid
	accepted := func(err error) bool { return err == nil }
	for _, test := range []struct {
		what   string
		change func(*coordinationv1.Lease)
		want   func(error) bool
	}{
		{"an empty holder", func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = &empty }, accepted},
		{"no holder and no duration", func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{} }, accepted},
		{"a duration of zero", func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = &zero }, invalid},
		{"a negative number of transitions", func(l *coordinationv1.Lease) { l.Spec.LeaseTransitions = &negative }, invalid},
		{"a label value with a space", func(l *coordinationv1.Lease) { l.Labels["ring"] = "f oo" }, invalid},
		{"a label value of 64 characters", func(l *coordinationv1.Lease) { l.Labels["ring"] = strings.Repeat("x", 64) }, invalid},
		{"an annotation key with two slashes", func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"a/b/c": ""} }, invalid},
		{"annotations of 256 KiB", func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"k": strings.Repeat("x", 256<<10-1)} }, accepted},
		{"annotations of more than 256 KiB", func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"k": strings.Repeat("x", 256<<10)} }, invalid},
		{"an owner reference without a UID", func(l *coordinationv1.Lease) {
			l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "a"}}
		}, invalid},
		{"more than etcd stores", func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"k": strings.Repeat("x", 3<<19)} }, func(err error) bool {
			return err != nil && strings.Contains(err.Error(), "etcdserver: request is too large")
		}},
		{"a request of more than 3 MiB", func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"k": strings.Repeat("x", 3<<20)} }, apierrors.IsRequestEntityTooLargeError},
	} {
		if _, err := newServer().Create(newLease(test.change), now); !test.want(err) {
			t.Errorf("create with %s: %.200v", test.what, err)
		}
		s := newServer()
		l, err := s.Create(newLease(func(*coordinationv1.Lease) {}), now)
		if err != nil {
			t.Fatal(err)
		}
		test.change(l)
		if _, err := s.Update(l, now); !test.want(err) {
			t.Errorf("update with %s: %.200v", test.what, err)
		}
	}
	if _, err := newServer().Create(newLease(func(l *coordinationv1.Lease) { l.Name = "X_1" }), now); !invalid(err) {
		t.Errorf("create with an invalid name: %v", err)
	}
}

func TestUpdates(t *testing.T) {
	s := newServer()
	created, _ := s.Create(newLease(func(*coordinationv1.Lease) {}), now)
	if again, err := s.Update(created, now); err != nil || again.ResourceVersion != created.ResourceVersion {
		t.Errorf("an update without a change: %v, version %s after %s", err, again.ResourceVersion, created.ResourceVersion)
	}
	next := newLease(func(l *coordinationv1.Lease) { l.Labels["more"] = "" })
	if _, err := s.Update(next, now); !apierrors.IsInvalid(err) {
		t.Errorf("an update without a version: %v", err)
	}
	next.UID, next.ResourceVersion = "another", created.ResourceVersion
	if _, err := s.Update(next, now); !apierrors.IsConflict(err) {
		t.Errorf("an update of another UID: %v", err)
	}
	next.UID = ""
	if _, err := s.Update(next, now); err != nil {
		t.Errorf("an update without a UID: %v", err)
	}
	empty := ""
	if err := s.Delete("default", "x", &metav1.Preconditions{ResourceVersion: &empty}, now); !apierrors.IsConflict(err) {
		t.Errorf("a deletion at an empty version: %v", err)
	}
	if err := s.Delete("default", "x", &metav1.Preconditions{UID: &created.UID}, now); err != nil {
		t.Error(err)
	}
	if _, err := s.Update(created, now); !apierrors.IsConflict(err) {
		t.Errorf("an update of a deleted Lease: %v", err)
	}
	if l, err := s.Update(next, now); err != nil || l.UID == created.UID {
		t.Errorf("an update without a UID creates a Lease: %v", err)
	}
}

func show(c *leaseserver.Cursor) (shown []string) {
	for _, e := range c.Events() {
		switch o := e.Object.(type) {
		case *coordinationv1.Lease:
			shown = append(shown, fmt.Sprint(e.Type, " ", o.Name, "@", o.ResourceVersion, " ", o.Labels["ring"]))
		case *metav1.Status:
			shown = append(shown, fmt.Sprint(e.Type, " ", o.Code))
		}
	}
	return shown
}

func TestWatches(t *testing.T) {
	s := newServer()
	foo := labels.SelectorFromSet(labels.Set{"ring": "foo"})
	want := func(what string, c *leaseserver.Cursor, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, show(c)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	all, ring, other := s.Watch("default", nil, "1", false), s.Watch("default", foo, "1", false), s.Watch("other", nil, "1", false)
	l, _ := s.Create(newLease(func(*coordinationv1.Lease) {}), now)
	l.Labels["ring"] = "bar"
	l, _ = s.Update(l, now)
	l.Labels["more"] = ""
	l, _ = s.Update(l, now)
	l.Labels["ring"] = "foo"
	l, _ = s.Update(l, now)
	want("all", all, "ADDED x@2 foo", "MODIFIED x@3 bar", "MODIFIED x@4 bar", "MODIFIED x@5 foo")
	// The event that deletes shows the last state that matched, with the version of the change.
	want("one label", ring, "ADDED x@2 foo", "DELETED x@3 foo", "ADDED x@5 foo")
	want("another namespace", other)
	if err := s.Delete("default", "x", nil, now); err != nil {
		t.Fatal(err)
	}
	want("a deletion", ring, "DELETED x@6 foo")

	s.Put(l, now)
	want("from a version", s.Watch("default", foo, "4", false), "ADDED x@5 foo", "DELETED x@6 foo", "ADDED x@7 foo")
	want("without a version", s.Watch("default", foo, "", false), "ADDED x@7 foo")
	want("a streamed list", s.Watch("default", foo, "", true), "ADDED x@7 foo", "BOOKMARK @7 ")
	behind := s.Watch("default", foo, "6", false)
	s.Compact()
	want("behind a compaction", behind, "ERROR 410")
	want("from a compacted version", s.Watch("default", foo, "5", false), "ERROR 410")
	want("from the compacted version", s.Watch("default", foo, "7", false))
}

// A watch that begins at a version that was given twice would skip writes.
func TestARestoreDropsTheHistory(t *testing.T) {
	s := leaseserver.NewStore[string]()
	a, _ := s.Create("a", now, "1")
	backup := s.BackUp()
	if _, err := s.Update("a", leaseserver.At(a.UID, a.Version), "2"); err != nil {
		t.Fatal(err)
	}
	s.Restore(backup)
	if got, _ := s.Get("a"); got != a {
		t.Errorf("after the restore: %+v, want %+v", got, a)
	}
	again, err := s.Update("a", leaseserver.At(a.UID, a.Version), "3")
	if err != nil || again.Version != "2" {
		t.Errorf("a version after a restore: %s, %v; the server gives 2 again", again.Version, err)
	}
	if _, err := s.After("0"); err == nil {
		t.Error("a watch can start before the restore")
	}
	if n, err := s.After(a.Version); err == nil && n < s.First() {
		t.Errorf("a watch can start at change %d, the first one is %d", n, s.First())
	}
}
