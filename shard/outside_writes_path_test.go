// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/shard"
)

// Leases and Events are exempt from Config.OutsideWrites. The API server may be behind a path, as
// with Rancher or a management proxy.
func TestOutsideWrites_BehindAPathPrefix(t *testing.T) {
	var paths []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{}`))
	}))
	defer server.Close()
	s, err := shard.New(fake.NewClientset(), shard.Config{Name: "foo", PodName: "a", Namespace: namespace, OutsideWrites: shard.RefuseOutsideWrites})
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", "/k8s/clusters/c-abcde"} {
		config := &rest.Config{Host: server.URL + prefix}
		config.Wrap(s.WrapTransport)
		client := kubernetes.NewForConfigOrDie(config)
		if _, err := client.CoordinationV1().Leases("x").Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "l"}}, metav1.CreateOptions{}); err != nil {
			t.Errorf("a Lease, prefix %q: %v", prefix, err)
		}
		if _, err := client.CoreV1().Events("x").Create(t.Context(), &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "x"}}, metav1.CreateOptions{}); err != nil {
			t.Errorf("an Event, prefix %q: %v", prefix, err)
		}
	}
	t.Log(paths)
}
