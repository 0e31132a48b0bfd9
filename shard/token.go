// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// AnnotationToken is the annotation in which [StampToken] puts the token.
const AnnotationToken = "operator-scaling.tom-ludwig.github.io/token"

// TokenFromContext returns the token of the partition that a piece of work belongs
// to, for a context from the Context of a queue: the resourceVersion of the write by
// which this member claimed it. Tokens of one partition strictly increase, as
// numbers, from owner to owner, so that a server can refuse the writes of an earlier one. It
// returns false for other contexts, and when the claim is gone.
func TokenFromContext(ctx context.Context) (string, bool) {
	p, ok := workqueue.FromContext(ctx)
	if !ok {
		return "", false
	}
	s, ok := p.Owner.(*Sharder)
	if !ok {
		return "", false
	}
	now := s.snapshot.Load()
	token := now.tokens[ring.PartitionOf(p.Point, now.partitions)]
	return token, token != ""
}

// StampToken puts the token of [TokenFromContext] on an object that is about to be
// written. Without a token it takes the annotation away: a writer that can't show a
// token of its own must not pass for the one that has written before.
//
// Call it once it is clear that something else is to be written, and on a copy: a
// token that differs is no reason for a write, and objects of listers are not yours
// to change. A patch must contain the annotation that it sets.
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
