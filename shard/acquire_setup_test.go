// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// Acquire returns ErrStopped when Run has returned. That includes an error in the setup.
func TestAcquire_ReturnsWhenTheSetupIsInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := shard.New(shardtest.NewCluster().Client("a"), shard.Config{Name: "foo", PodName: "a", Namespace: namespace})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			_, _, err := s.Acquire(ctx, "x/y")
			ended <- err
		}()
		q := shard.NewQueue(s, clientworkqueue.TypedRateLimiter[cache.ObjectName](nil)) // an invalid setup
		defer q.ShutDown()
		if err := s.Run(t.Context()); err == nil {
			t.Fatal("Run has not returned the error in the setup")
		}
		time.Sleep(time.Hour)
		select {
		case err := <-ended:
			if !errors.Is(err, shard.ErrStopped) {
				t.Errorf("Acquire has returned %v", err)
			}
		default:
			t.Error("Acquire waits, although Run has returned")
			cancel()
			<-ended
		}
	})
}
