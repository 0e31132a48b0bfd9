// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// These tests have requests that get a 403 although the member's Role is correct. A 403 may end
// Run only if it lasts, and only if this process has never joined. A missing rule may be
// reported only if the 403 comes from a missing rule.

const giveARole = "give it a Role"

// errNoRole is the error of an API server whose authorizers have not loaded any rule yet.
var errNoRole = forbidden(`RBAC: role.rbac.authorization.k8s.io "foo-operator" not found`)

func forbidden(why string) *apierrors.StatusError {
	return apierrors.NewForbidden(coordinationv1.Resource("leases"), "foo-a", errors.New(why))
}

// review responds to access reviews as a server with the correct Role does; change may modify
// the response.
func review(w *faultyClient, change func(verb string, status *authorizationv1.SubjectAccessReviewStatus)) {
	w.PrependReactor("create", "selfsubjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		review := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview).DeepCopy()
		review.Status.Allowed = true
		change(review.Spec.ResourceAttributes.Verb, &review.Status)
		return true, review, nil
	})
}

func allowed(string, *authorizationv1.SubjectAccessReviewStatus) {}

// refuse rejects requests with these verbs with an error, from now until the given time.
func refuse(w *faultyClient, until time.Time, err error, verbs ...string) {
	w.replan(func(verb string) trip {
		if slices.Contains(verbs, verb) && time.Now().Before(until) {
			return trip{err: err}
		}
		return fast(verb)
	})
}

// works fails unless a member works after the given time.
func works(t *testing.T, m *member, after time.Duration) {
	t.Helper()
	began := time.Now()
	select {
	case err := <-m.done:
		t.Fatalf("Run has ended after %v: %v", time.Since(began), err)
	case <-time.After(after):
	}
	oneOwnerEach(t, m)
	if err := m.Ready(); err != nil {
		t.Error(err)
	}
}

// blamesNoRole fails if a member has reported that its Role lacks a rule.
func blamesNoRole(t *testing.T, m *member) {
	t.Helper()
	reports := m.logged(time.Time{})
	if err := m.Ready(); err != nil {
		reports = append(reports, err.Error())
	}
	for _, text := range reports {
		if strings.Contains(text, giveARole) {
			t.Errorf("a missing rule is reported: %s", text)
			return
		}
	}
}

func TestForbidden_ForASecondAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlannedClient(shardtest.NewCluster().Client("a"), fast)
		review(w, allowed)
		refuse(w, time.Now().Add(time.Second), errNoRole, "list")
		a := start(t, w, "a")
		works(t, a, 10*time.Second)
		end(t, a)
	})
}

// The API server was down for longer than a denial may last, and denies requests for a second
// after its start, before its authorizers have loaded their rules.
func TestForbidden_ForASecondAfterAnOutageAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlannedClient(shardtest.NewCluster().Client("a"), fast)
		review(w, allowed)
		outage := time.Now().Add(30 * time.Second)
		w.replan(func(verb string) trip {
			switch {
			case time.Now().Before(outage):
				return trip{err: errors.New("connection refused")}
			case time.Now().Before(outage.Add(time.Second)):
				return trip{err: errNoRole}
			}
			return fast(verb)
		})
		a := start(t, w, "a")
		works(t, a, time.Minute)
		end(t, a)
	})
}

// A member that has worked for a long time loses its Lease while an API server starts.
func TestForbidden_ForASecondAtARejoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		w := newPlannedClient(cluster.Client("a"), fast)
		review(w, allowed)
		a := start(t, w, "a")
		time.Sleep(10 * time.Second)
		refuse(w, time.Now().Add(time.Second), errNoRole, "create", "list")
		works(t, a, 2*time.Second)
		refuse(w, time.Now().Add(time.Second), errNoRole, "create", "list")
		cluster.Remove(namespace, "foo-a")
		works(t, a, afterCrash)
		end(t, a)
	})
}

// The second of two API servers behind a load balancer is just starting.
func TestForbidden_ReviewThatCouldNotBeEvaluated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlannedClient(shardtest.NewCluster().Client("a"), fast)
		began := time.Now()
		review(w, func(verb string, status *authorizationv1.SubjectAccessReviewStatus) {
			if verb == "list" && time.Since(began) < 2*time.Second {
				status.Allowed = false
				status.EvaluationError = `RBAC: role.rbac.authorization.k8s.io "foo-operator" not found`
			}
		})
		a := start(t, w, "a")
		works(t, a, 10*time.Second)
		blamesNoRole(t, a)
		end(t, a)
	})
}

func TestForbidden_QuotaIsNotAMissingRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlannedClient(shardtest.NewCluster().Client("a"), fast)
		review(w, allowed)
		refuse(w, time.Now().Add(20*time.Second), forbidden("exceeded quota: objects, requested: count/leases.coordination.k8s.io=1, used: 20, limited: 20"), "create")
		a := start(t, w, "a")
		time.Sleep(10 * time.Second)
		blamesNoRole(t, a)
		works(t, a, 50*time.Second)
		end(t, a)
	})
}

// A process that never gets access ends, but not because of what may pass.
func TestForbidden_EndsRunOnlyIfAccessIsDenied(t *testing.T) {
	for name, test := range map[string]struct {
		verbs []string
		err   error
		ends  bool
	}{
		"RBAC, create":                        {[]string{"create"}, forbidden(`User "system:serviceaccount:default:foo" cannot create resource "leases" in API group "coordination.k8s.io" in the namespace "default"`), true},
		"RBAC, watch":                         {[]string{"list", "watch"}, forbidden(`User "system:serviceaccount:default:foo" cannot list resource "leases" in API group "coordination.k8s.io" in the namespace "default"`), true},
		"RBAC, namespace with a telling name": {[]string{"create"}, forbidden(`User "system:serviceaccount:quota-system:denied" cannot create resource "leases" in API group "coordination.k8s.io" in the namespace "quota-system"`), true},
		"webhook":                             {[]string{"create"}, forbidden(`admission webhook "validate.example.com" denied the request: no Leases today`), false},
		"policy":                              {[]string{"create"}, forbidden(`ValidatingAdmissionPolicy 'leases' with binding 'leases' denied request: no`), false},
		"policy, 422": {[]string{"create"}, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: 422, Reason: metav1.StatusReasonInvalid, Message: "ValidatingAdmissionPolicy 'leases' denied request: no",
		}}, false},
		"quota": {[]string{"create"}, forbidden("exceeded quota: objects, requested: count/leases.coordination.k8s.io=1, used: 20, limited: 20"), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newPlannedClient(shardtest.NewCluster().Client("a"), fast)
				review(w, allowed)
				refuse(w, time.Now().Add(time.Hour), test.err, test.verbs...)
				a := start(t, w, "a")
				select {
				case err := <-a.done:
					if !test.ends || !errors.Is(err, shard.ErrForbidden) || !strings.Contains(err.Error(), giveARole) {
						t.Errorf("Run returned %v", err)
					}
					return
				case <-time.After(10 * time.Minute):
				}
				if test.ends {
					t.Error("Run has not returned")
				}
				blamesNoRole(t, a)
				if err := a.Ready(); err == nil || !strings.Contains(err.Error(), test.err.Error()) {
					t.Errorf("the member is not ready because: %v", err)
				}
				end(t, a)
			})
		})
	}
}

func TestForbidden_TerminatingNamespaceIsNotAMissingRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		w := newPlannedClient(cluster.Client("a"), fast)
		review(w, allowed)
		a := start(t, w, "a")
		time.Sleep(5 * time.Second)
		terminating := forbidden("unable to create new content in namespace default because it is being terminated")
		terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause, Message: "namespace default is being terminated", Field: "metadata.namespace"}}
		refuse(w, time.Now().Add(time.Hour), terminating, "create")
		cluster.Remove(namespace, "foo-a")
		select {
		case err := <-a.done:
			t.Fatalf("Run has ended: %v", err)
		case <-time.After(time.Minute):
		}
		blamesNoRole(t, a)
		if err := a.Ready(); err == nil || !strings.Contains(err.Error(), "being terminated") {
			t.Errorf("a member whose namespace is being deleted is not ready because: %v", err)
		}
		end(t, a)
	})
}

// A member that has joined may no longer list and watch, and must list to gain the partitions
// of the peer that has left.
func TestForbidden_ForTenMinutesDoesNotFloodTheLog(t *testing.T) {
	var lines, lists int
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		w := newPlannedClient(cluster.Client("a"), fast)
		review(w, allowed)
		a, b := start(t, w, "a"), start(t, cluster.Client("b"), "b")
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, a, b)
		since := time.Now()
		refuse(w, since.Add(10*time.Minute), errNoRole, "list", "watch")
		end(t, b)
		lists = w.requests("list")
		time.Sleep(10 * time.Minute)
		lines = len(a.logged(since))
		lists = w.requests("list") - lists
		time.Sleep(30 * time.Second)
		oneOwnerEach(t, a)
		end(t, a)
	})

	if lines < 5 || lines > 60 {
		t.Errorf("%d lines were logged in ten minutes, want 5 to 60", lines)
	}
	if lists > 600 {
		t.Errorf("%d lists were sent in ten minutes, want at most one a second", lists)
	}
}
