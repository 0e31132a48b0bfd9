// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/tom-ludwig/operator-scaling/shard"
)

func TestOutsideWrites(t *testing.T) {
	const object = "/api/v1/namespaces/x/configmaps/y"
	for _, c := range []struct {
		name         string
		policy       shard.OutsideWritePolicy
		method, path string
		sent, logged bool
		counted      float64
	}{
		{"allowed", shard.AllowOutsideWrites, http.MethodPut, object, true, false, 1},
		{"logged", shard.LogOutsideWrites, http.MethodPatch, object, true, true, 1},
		{"refused", shard.RefuseOutsideWrites, http.MethodDelete, object, false, false, 1},
		{"a token", shard.RefuseOutsideWrites, http.MethodPost, "/api/v1/namespaces/x/serviceaccounts/y/token", true, false, 0},
		{"a dry run", shard.RefuseOutsideWrites, http.MethodPost, "/api/v1/namespaces/x/configmaps?dryRun=All", true, false, 0},
		{"a resource that is called like an exempt one", shard.RefuseOutsideWrites, http.MethodPost, "/api/v1/namespaces/events/configmaps", false, false, 1},
		{"a read", shard.RefuseOutsideWrites, http.MethodGet, object, true, false, 0},
		{"a Lease", shard.RefuseOutsideWrites, http.MethodPut, "/apis/coordination.k8s.io/v1/namespaces/x/leases/y", true, false, 0},
		{"a review", shard.RefuseOutsideWrites, http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", true, false, 0},
		{"an Event", shard.RefuseOutsideWrites, http.MethodPost, "/api/v1/namespaces/x/events", true, false, 0},
		{"a new Event", shard.RefuseOutsideWrites, http.MethodPatch, "/apis/events.k8s.io/v1/namespaces/x/events/y", true, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := shard.New(fake.NewClientset(), shard.Config{Name: "foo", PodName: "a", Namespace: namespace, OutsideWrites: c.policy})
			if err != nil {
				t.Fatal(err)
			}
			logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
			body := &closer{Reader: strings.NewReader("{}")}
			r, err := http.NewRequestWithContext(klog.NewContext(t.Context(), logger), c.method, "http://127.0.0.1"+c.path, body)
			if err != nil {
				t.Fatal(err)
			}
			var count sent
			_, err = s.WrapTransport(&count).RoundTrip(r) //nolint:bodyclose // there is none
			if (count == 1) != c.sent || errors.Is(err, shard.ErrOutsideWork) == c.sent || errors.Is(err, shard.ErrLostOwnership) || body.closed == c.sent {
				t.Errorf("sent: %v, error %v, body closed: %v", count == 1, err, body.closed)
			}
			if text := logger.GetSink().(ktesting.Underlier).GetBuffer().String(); strings.Contains(text, object) != c.logged {
				t.Errorf("logged %q", text)
			}
			if n := valueOf(t, s, "sharding_outside_writes_total"); n != c.counted {
				t.Errorf("counted %v", n)
			}
		})
	}
}

func valueOf(t *testing.T, s *shard.Sharder, metric string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(s.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == metric {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s", metric)
	return 0
}
