// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"

	"github.com/tom-ludwig/operator-scaling/shard"
)

// A unit test of a user runs the operator on client-go's fake clientset, which sets no
// resourceVersions. The member can own nothing then, which is right; but it must not send requests
// as fast as it can, without saying why.
func TestAFakeClientsetIsNotFlooded(t *testing.T) {
	clientset := fake.NewClientset()
	s, err := shard.New(clientset, shard.Config{Name: "foo", PodName: "a", Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err = s.Run(ctx)
	counts := map[string]int{}
	for _, a := range clientset.Actions() {
		counts[a.GetVerb()+" "+a.GetResource().Resource]++
	}
	if n := len(clientset.Actions()); n > 1000 {
		t.Errorf("%d requests in 2 s: %v; Run: %v; Ready: %v", n, counts, err, s.Ready())
	}
}
