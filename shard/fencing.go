// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// AnnotationToken is the annotation in which [StampToken] puts the token.
const AnnotationToken = "operator-scaling.tom-ludwig.github.io/token"

// TokenFromContext returns the token of the partition that a piece of work belongs
// to, for a context from the Context of a queue. The token is the resourceVersion of the
// write with which this member claimed the partition. The tokens of one partition strictly
// increase, as numbers, from owner to owner, so that a server can refuse the writes of an
// earlier owner. TokenFromContext returns false for other contexts, and when this member
// no longer claims the partition.
func TokenFromContext(ctx context.Context) (string, bool) {
	p, ok := workqueue.FromContext(ctx)
	if !ok {
		return "", false
	}
	owner, ok := p.Owner.(tokens)
	if !ok {
		return "", false
	}
	token := owner.Token(p.Point)
	return token, token != ""
}

// StampToken sets the token of [TokenFromContext] on an object that is about to be
// written. Without a token it removes the annotation, so that a writer without a token
// does not write with the token of an earlier writer.
//
// Call it only when there is something else to write: a different token alone is no reason
// for a write. Call it on a copy, because objects from listers must not be modified. A
// patch must contain the annotation that StampToken sets.
func StampToken(ctx context.Context, object metav1.Object) {
	annotations := object.GetAnnotations()
	token, ok := TokenFromContext(ctx)
	switch {
	case !ok:
		delete(annotations, AnnotationToken)
	case annotations == nil:
		annotations = map[string]string{AnnotationToken: token}
	default:
		annotations[AnnotationToken] = token
	}
	object.SetAnnotations(annotations)
}
