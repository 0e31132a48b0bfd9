// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// StampToken sets the token of the work on the object, and removes the tokens of others.
func TestStampToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var before uint64
		for _, name := range []string{"a", "b"} {
			m := start(t, cluster.Client(name), name)
			q := shard.NewQueue(m.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
			time.Sleep(5 * time.Second)
			q.Add(cache.ObjectName{Namespace: "x", Name: "y"})
			item, _ := q.Get()
			ctx := q.Context(context.Background(), item)

			token := m.Token("x/y")
			now, err := strconv.ParseUint(token, 10, 64)
			if err != nil || now <= before {
				t.Errorf("token %q after %d (%v): it must be a number that increases from owner to owner", token, before, err)
			}
			before = now
			stamped := map[string]string{shard.AnnotationToken: token}
			for _, test := range []struct {
				name         string
				ctx          context.Context
				before, want map[string]string
			}{
				{"no annotations", ctx, nil, stamped},
				{"an earlier token", ctx, map[string]string{shard.AnnotationToken: "1", "a": "b"}, map[string]string{shard.AnnotationToken: token, "a": "b"}},
				{"of no queue", context.Background(), map[string]string{shard.AnnotationToken: "1", "a": "b"}, map[string]string{"a": "b"}},
				{"of no queue, no annotations", context.Background(), nil, nil},
			} {
				object := &metav1.ObjectMeta{Annotations: test.before}
				shard.StampToken(test.ctx, object)
				if diff := cmp.Diff(test.want, object.Annotations); diff != "" {
					t.Errorf("%s (-want +got):\n%s", test.name, diff)
				}
			}

			q.Done(item)
			q.ShutDown()
			if err := m.end(); err != nil {
				t.Error(err)
			}
			// Without the claim there is no token.
			object := &metav1.ObjectMeta{Annotations: map[string]string{shard.AnnotationToken: "1"}}
			shard.StampToken(ctx, object)
			if len(object.Annotations) > 0 {
				t.Errorf("without a claim: %v", object.Annotations)
			}
		}
	})
}
