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
	corev1 "k8s.io/api/core/v1"
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

// DenialLasts is how long a denial must last before it is certain: an API server that
// starts denies requests until its authorizers have loaded their rules, and a Role may be
// created a moment after the Pods that need it.
const DenialLasts = 10 * time.Second

// Check asks the API server whether this process may do everything that a member
// does, so that a missing rule is reported at the start and not by the first request
// that needs it: for "delete" that would be at shutdown. It returns an error only if it is
// certain that access is denied, and it is still denied after [DenialLasts].
func (a Access) Check(ctx context.Context) error {
	const period = time.Second
	began := time.Now()
	for {
		denied := a.denied(ctx)
		switch {
		case len(denied) == 0:
			return nil
		case time.Since(began) >= DenialLasts:
			return a.missing(denied...)
		}
		select {
		case <-time.After(period):
		case <-ctx.Done():
			return nil // the caller knows
		}
	}
}

// denied returns the verbs that this process may certainly not use now.
func (a Access) denied(ctx context.Context) (verbs []string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, verb := range leaseVerbs {
		review, err := a.review(ctx, verb)
		if err != nil {
			return nil // the requests themselves will show a missing rule
		}
		// With an EvaluationError, an authorizer could not decide.
		if !review.Status.Allowed && review.Status.EvaluationError == "" {
			verbs = append(verbs, verb)
		}
	}
	if len(verbs) == len(leaseVerbs) {
		// A server without such reviews, for instance a fake one, seems to deny everything.
		_, err := a.Leases.List(ctx, metav1.ListOptions{Limit: 1})
		if !apierrors.IsForbidden(err) {
			return nil
		}
	}
	return verbs
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

// Explain adds to the error of a refused request why it was refused and what helps. It also
// reports whether this process is not authorized to send the request. Other errors are
// returned as they are.
//
// A server refuses requests for several reasons with the same status. Only one of them has
// a cause that a client can read; the others have only their messages.
func (a Access) Explain(err error, verb string) (explained error, unauthorized bool) {
	if !apierrors.IsForbidden(err) {
		return err, false
	}
	because := func(why string) (error, bool) {
		return fmt.Errorf("shard: ring %s: %s refused to %s a Lease in namespace %q: %w", a.Ring, why, verb, a.Namespace, err), false
	}
	message := err.Error()
	switch {
	case strings.Contains(message, fmt.Sprintf(" cannot %s resource %q", verb, "leases")): // an authorizer; names in its message may mean anything
	case verb == "get" || verb == "list" || verb == "watch": // only an authorizer refuses reads
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return because("the namespace is being deleted, and the API server")
	case strings.Contains(message, "quota"):
		return because("a ResourceQuota")
	case strings.Contains(message, "admission webhook"), strings.Contains(message, "AdmissionPolicy"), strings.Contains(message, "denied"):
		return because("an admission webhook or policy")
	}
	return fmt.Errorf("%w: %w", a.missing(verb), err), true
}

func (a Access) missing(verbs ...string) error {
	return fmt.Errorf("shard: ring %s: %w: the service account may not %s leases.coordination.k8s.io in namespace %q; "+
		"give it a Role there with the rule {apiGroups: [\"coordination.k8s.io\"], resources: [\"leases\"], verbs: [%s]}",
		a.Ring, ErrForbidden, strings.Join(verbs, ", "), a.Namespace, strings.Join(leaseVerbs, ", "))
}
