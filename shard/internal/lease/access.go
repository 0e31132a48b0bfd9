// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authorizationv1client "k8s.io/client-go/kubernetes/typed/authorization/v1"
	clientcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// ErrForbidden is the error of a member that may not use Leases.
var ErrForbidden = errors.New("access to Leases is forbidden")

// Access explains and checks what this process may do with Leases.
type Access struct {
	Leases    clientcoordinationv1.LeaseInterface
	Reviews   authorizationv1client.SelfSubjectAccessReviewInterface
	Calls     *Calls
	Ring      string
	Namespace string
}

// leaseVerbs are the verbs that a member uses on Leases.
var leaseVerbs = []string{"get", "list", "watch", "create", "update", "delete"}

// Check asks the API server whether this process may do everything that a member
// does, so that a missing rule is reported at the start and not by the first request
// that needs it: for "delete" that would be at shutdown. It returns an error only if it is
// certain that access is refused.
func (a Access) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var denied []string
	for _, verb := range leaseVerbs {
		review, err := a.review(ctx, verb)
		if err != nil {
			return nil // the requests themselves will show a missing rule
		}
		if !review.Status.Allowed {
			denied = append(denied, verb)
		}
	}
	if len(denied) == len(leaseVerbs) {
		// A server without such reviews, for instance a fake one, seems to deny everything.
		_, err := a.Leases.List(ctx, metav1.ListOptions{Limit: 1})
		if !apierrors.IsForbidden(err) {
			return nil
		}
	}
	if len(denied) > 0 {
		return a.missing(denied...)
	}
	return nil
}

// review asks whether this process may use a verb on Leases.
func (a Access) review(ctx context.Context, verb string) (*authorizationv1.SelfSubjectAccessReview, error) {
	question := &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: a.Namespace, Verb: verb, Group: "coordination.k8s.io", Resource: "leases",
		}},
	}
	return Call(ctx, a.Calls, func(ctx context.Context) (*authorizationv1.SelfSubjectAccessReview, error) {
		return a.Reviews.Create(ctx, question, metav1.CreateOptions{})
	}, nil)
}

// Forbidden returns an error with the missing rule if err is that access is forbidden, or
// nil if err is something else.
func (a Access) Forbidden(err error, verb string) error {
	if !apierrors.IsForbidden(err) {
		return nil
	}
	return fmt.Errorf("%w: %w", a.missing(verb), err)
}

func (a Access) missing(verbs ...string) error {
	return fmt.Errorf("shard: ring %s: %w: the service account may not %s leases.coordination.k8s.io in namespace %q; "+
		"give it a Role there with the rule {apiGroups: [\"coordination.k8s.io\"], resources: [\"leases\"], verbs: [%s]}",
		a.Ring, ErrForbidden, strings.Join(verbs, ", "), a.Namespace, strings.Join(leaseVerbs, ", "))
}
