// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"fmt"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// leaseVerbs are the verbs that a member uses on Leases.
var leaseVerbs = []string{"get", "list", "watch", "create", "update", "delete"}

// checkAccess asks the API server whether this process may do everything that a member
// does, so that a missing rule is reported at the start and not by the first request
// that needs it: for "delete" that would be at shutdown. It returns an error only if it is
// certain that access is refused.
func (s *Sharder) checkAccess(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var denied []string
	for _, verb := range leaseVerbs {
		review, err := s.api.reviews.SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: s.cfg.Namespace, Verb: verb, Group: "coordination.k8s.io", Resource: "leases",
			}},
		}, metav1.CreateOptions{})
		if err != nil {
			return nil // the requests themselves will show a missing rule
		}
		if !review.Status.Allowed {
			denied = append(denied, verb)
		}
	}
	if len(denied) == len(leaseVerbs) {
		// A server without such reviews, for instance a fake one, seems to deny everything.
		_, err := s.api.leases.Leases(s.cfg.Namespace).List(ctx, metav1.ListOptions{Limit: 1})
		if !apierrors.IsForbidden(err) {
			return nil
		}
	}
	if len(denied) > 0 {
		return s.missing(denied...)
	}
	return nil
}

// forbidden returns an error with the missing rule if err is that access is forbidden, or
// nil if err is something else.
func (s *Sharder) forbidden(err error, verb string) error {
	if !apierrors.IsForbidden(err) {
		return nil
	}
	return fmt.Errorf("%w: %w", s.missing(verb), err)
}

func (s *Sharder) missing(verbs ...string) error {
	return fmt.Errorf("shard: ring %s: %w: the service account may not %s leases.coordination.k8s.io in namespace %q; "+
		"give it a Role there with the rule {apiGroups: [\"coordination.k8s.io\"], resources: [\"leases\"], verbs: [%s]}",
		s.cfg.Name, ErrForbidden, strings.Join(verbs, ", "), s.cfg.Namespace, strings.Join(leaseVerbs, ", "))
}

func podReference(name, uid string) *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: name, UID: types.UID(uid)}
}
