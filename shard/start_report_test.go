// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// While a member waits at its start, the probe, the status page and the log say for what.
func TestReport_WhatAStartWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), klog.Logger{}))
		b, err := shard.New(cluster.Client("b"), shard.Config{Name: "foo", PodName: "b", Namespace: namespace, PodUID: podUID("b")})
		if err != nil {
			t.Fatal(err)
		}
		shard.NewInformer(b, &cache.ListWatch{}, &corev1.ConfigMap{}, 0, nil) // nothing starts it
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		time.Sleep(100 * time.Millisecond)
		a := start(t, cluster.Client("a"), "a")

		time.Sleep(4 * time.Second)
		if err := b.Ready(); err == nil || !strings.Contains(err.Error(), "informers have not synced") {
			t.Errorf("without informers, Ready returns %v", err)
		}
		if got := page(t, a.Sharder).Waiting; !strings.Contains(got, "foo-b, which starts at the same time") {
			t.Errorf("the status page says that it waits for %q", got)
		}
		if log := a.log.String(); !strings.Contains(log, "does not work yet") || !strings.Contains(log, "foo-b") || strings.Contains(log, "work begins") {
			t.Errorf("the log does not say what it waits for:\n%s", log)
		}
		time.Sleep(4 * time.Second)
		if got := page(t, a.Sharder).Waiting; got != "" {
			t.Errorf("while it works, the status page says that it waits for %q", got)
		}
		if log := a.log.String(); strings.Count(log, "work begins") != 1 {
			t.Errorf("the log does not say that work begins:\n%s", log)
		}
		end(t, a)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func page(t *testing.T, s *shard.Sharder) (r inspect.Report) {
	t.Helper()
	w := httptest.NewRecorder()
	s.DebugHandler().ServeHTTP(w, httptest.NewRequest("GET", "/?format=json", nil))
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return r
}
