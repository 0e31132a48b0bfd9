// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"net/http/httptest"
	"testing"
	"time"
)

func TestClassOf(t *testing.T) {
	const group = "/apis/coordination.k8s.io/v1"
	for _, c := range []struct {
		method, url string
		want        Class
	}{
		{"GET", group + "/namespaces/x/leases/a", LeaseRead},
		{"GET", group + "/namespaces/x/leases?limit=500", LeaseRead},
		{"GET", group + "/leases", LeaseRead},
		{"GET", group + "/leases?watch=true", LeaseWatch},
		{"GET", group + "/namespaces/x/leases?allowWatchBookmarks=true&watch=1", LeaseWatch},
		{"GET", group + "/namespaces/x/leases?watch=false", LeaseRead},
		{"GET", group + "/watch/namespaces/x/leases", LeaseWatch},
		{"POST", group + "/namespaces/x/leases", LeaseWrite},
		{"PUT", group + "/namespaces/x/leases/a", LeaseWrite},
		{"PATCH", group + "/namespaces/x/leases/a", LeaseWrite},
		{"DELETE", group + "/namespaces/x/leases/a", LeaseWrite},
		{"DELETE", group + "/namespaces/x/leases", LeaseWrite},
		{"GET", group + "/namespaces/leases/leasecandidates/leases", ObjectRead},
		{"GET", group, ObjectRead},
		{"GET", "/apis/example.com/v1/namespaces/x/leases/a", ObjectRead},
		{"GET", "/api/v1/namespaces/leases", ObjectRead},
		{"GET", "/api/v1/pods?watch=true", ObjectWatch},
		{"GET", "/api/v1/watch/pods", ObjectWatch},
		{"PUT", "/apis/example.com/v1/namespaces/x/foos/a/status", ObjectWrite},
		{"GET", "/", ObjectRead},
		{"GET", "/version", ObjectRead},
	} {
		if got := classOf(httptest.NewRequest(c.method, c.url, nil)); got != c.want {
			t.Errorf("%s %s is %v, want %v", c.method, c.url, got, c.want)
		}
	}
}

func TestRuleValidate(t *testing.T) {
	for _, rule := range []Rule{
		{},
		{Action: Cut, Probability: 0.5},
		{Action: Stall, Late: true},
		{Action: Delay, Delay: time.Second, Late: true, Probability: 1},
		{Action: DropResponse, Hang: true},
		{Action: Fail, Status: 503},
	} {
		if err := rule.validate(); err != nil {
			t.Errorf("%v: %v", rule, err)
		}
	}
	for _, rule := range []Rule{
		{Action: Cut, Late: true},
		{Action: Stall, Hang: true},
		{Action: Delay},
		{Action: Stall, Delay: time.Second},
		{Action: Fail},
		{Action: Fail, Status: 200},
		{Action: Cut, Status: 500},
		{Action: Cut, Probability: 1.1},
		{Action: Cut, Probability: -0.1},
	} {
		if err := rule.validate(); err == nil {
			t.Errorf("%v: no error", rule)
		}
	}
}

func TestString(t *testing.T) {
	for want, got := range map[string]string{
		"LeaseWrite|ObjectWatch": (LeaseWrite | ObjectWatch).String(),
		"pass":                   Rule{}.String(),
		"delay 1s, late, 25 %":   Rule{Action: Delay, Delay: time.Second, Late: true, Probability: 0.25}.String(),
		"fail 429":               Rule{Action: Fail, Status: 429}.String(),
		"drop response, hang":    Rule{Action: DropResponse, Hang: true}.String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
