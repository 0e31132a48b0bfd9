// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clientcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/tom-ludwig/operator-scaling/shard"
)

// newSharder creates a Sharder with the given clientset. It does not run.
func newSharder(t *testing.T, client kubernetes.Interface) *shard.Sharder {
	t.Helper()
	s, err := shard.New(client, shard.Config{Name: "foo", PodName: "a", Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// everyRequest sends each request that a member sends, once. The responses do not matter.
func everyRequest(ctx context.Context, s *shard.Sharder) {
	leases := s.Leases().Leases(namespace)
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "foo-a"}}
	_, _ = s.Reviews().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{}, metav1.CreateOptions{})
	_, _ = s.Pods().Pods(namespace).Get(ctx, "a", metav1.GetOptions{})
	_, _ = leases.Get(ctx, "foo-a", metav1.GetOptions{})
	_, _ = leases.Create(ctx, l, metav1.CreateOptions{})
	_, _ = leases.Update(ctx, l, metav1.UpdateOptions{})
	_, _ = leases.List(ctx, metav1.ListOptions{})
	if w, err := leases.Watch(ctx, metav1.ListOptions{}); err == nil {
		w.Stop()
	}
	_ = leases.Delete(ctx, "foo-a", metav1.DeleteOptions{})
}

// requestsOfAll is the number of these requests.
const requestsOfAll = 8

// noLimiter fails the test for each request that waits in it.
type noLimiter struct {
	flowcontrol.RateLimiter
	t *testing.T
}

func (l noLimiter) Wait(context.Context) error {
	l.t.Error("a request waits in the clientset's rate limiter")
	return nil
}

func TestNew_SendsRequestsLikeTheClientsetButWithoutItsRateLimiter(t *testing.T) {
	for _, contentType := range []string{"", "application/vnd.kubernetes.protobuf", "application/json"} {
		var mu sync.Mutex
		var seen []*http.Request
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			mu.Lock()
			seen = append(seen, r)
			mu.Unlock()
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{}`)
		}))
		wrapped := 0
		config := &rest.Config{
			Host: server.URL + "/k8s/clusters/x", BearerToken: "secret", UserAgent: "my-operator/1.0", Timeout: time.Minute,
			Impersonate:   rest.ImpersonationConfig{UserName: "jane"},
			ContentConfig: rest.ContentConfig{ContentType: contentType},
			RateLimiter:   noLimiter{t: t},
		}
		config.Wrap(func(rt http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				mu.Lock()
				wrapped++
				mu.Unlock()
				return rt.RoundTrip(r)
			})
		})
		client := kubernetes.NewForConfigOrDie(config)
		everyRequest(t.Context(), newSharder(t, client))
		mine := seen
		seen = nil

		// The same requests through the clientset itself.
		config.RateLimiter = nil
		config.QPS = -1
		plain := kubernetes.NewForConfigOrDie(config)
		leases := plain.CoordinationV1().Leases(namespace)
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "foo-a"}}
		_, _ = leases.Update(t.Context(), l, metav1.UpdateOptions{})
		server.Close()

		if len(mine) != requestsOfAll || wrapped != requestsOfAll+1 {
			t.Fatalf("%q: the server got %d requests, and the wrapper %d", contentType, len(mine), wrapped)
		}
		for _, r := range mine {
			if !strings.HasPrefix(r.URL.Path, "/k8s/clusters/x/api") || strings.Contains(r.URL.Path, "//") {
				t.Errorf("%q: path %s", contentType, r.URL.Path)
			}
			if got := r.Header.Get("Authorization"); got != "Bearer secret" {
				t.Errorf("%q: %s %s with authorization %q", contentType, r.Method, r.URL, got)
			}
			if got := r.Header.Get("User-Agent"); got != "my-operator/1.0" {
				t.Errorf("%q: %s %s by %q", contentType, r.Method, r.URL, got)
			}
			if got := r.Header.Get("Impersonate-User"); got != "jane" {
				t.Errorf("%q: %s %s as %q", contentType, r.Method, r.URL, got)
			}
			if r.Method == http.MethodPut {
				for _, header := range []string{"Content-Type", "Accept"} {
					if got, want := r.Header.Get(header), seen[0].Header.Get(header); got != want {
						t.Errorf("%q: %s is %q, and %q in the clientset's own request", contentType, header, got, want)
					}
				}
				if r.URL.String() != seen[0].URL.String() {
					t.Errorf("%q: update to %s, and to %s by the clientset", contentType, r.URL, seen[0].URL)
				}
			}
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// With client-go's default limit 40 requests take six seconds.
func TestNew_HeartbeatsDoNotWaitForTheDefaultLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := kubernetes.NewForConfigOrDie(&rest.Config{
			Host: "https://example.com",
			Transport: roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{}`))}, nil
			}),
		})
		s := newSharder(t, client)
		requests := func(leases clientcoordinationv1.LeaseInterface) time.Duration {
			start := time.Now()
			for range 40 {
				if _, err := leases.Update(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "foo-a"}}, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(start)
		}
		if took := requests(client.CoordinationV1().Leases(namespace)); took < 5*time.Second {
			t.Fatalf("40 requests through the clientset take %v: it has no limit", took)
		}
		// The tokens of the clientset's rate limiter are used up now.
		if took := requests(s.Leases().Leases(namespace)); took > 0 {
			t.Errorf("40 requests of a member took %v", took)
		}
	})
}

// A clientset that is not client-go's own is used as it is.
func TestNew_UsesOtherClientsetsAsTheyAre(t *testing.T) {
	plain := fake.NewClientset()
	everyRequest(t.Context(), newSharder(t, plain))
	if n := len(plain.Actions()); n != requestsOfAll {
		t.Errorf("the fake saw %d requests", n)
	}
	inner := kubernetes.NewForConfigOrDie(&rest.Config{Host: "https://example.com", Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		t.Errorf("%s %s bypasses the wrapper", r.Method, r.URL)
		return nil, http.ErrNotSupported
	})})
	wrapper := &wrappedClientset{Interface: inner}
	s := newSharder(t, wrapper)
	_, _ = s.Leases().Leases(namespace).Get(t.Context(), "foo-a", metav1.GetOptions{})
	if wrapper.asked == 0 {
		t.Error("the wrapper was not asked for Leases")
	}
	if s := newSharder(t, kubernetes.New(nil)); s == nil {
		t.Error("a clientset without a REST client is rejected")
	}
	if _, err := shard.New((*kubernetes.Clientset)(nil), shard.Config{Name: "foo", PodName: "a", Namespace: namespace}); err == nil {
		t.Error("a nil clientset is accepted")
	}
}

// wrappedClientset is a user's clientset that wraps client-go's.
type wrappedClientset struct {
	kubernetes.Interface
	asked int
}

func (c *wrappedClientset) CoordinationV1() clientcoordinationv1.CoordinationV1Interface {
	return &wrappedCoordination{c.Interface.CoordinationV1(), c}
}

type wrappedCoordination struct {
	clientcoordinationv1.CoordinationV1Interface
	c *wrappedClientset
}

func (c *wrappedCoordination) Leases(string) clientcoordinationv1.LeaseInterface {
	c.c.asked++
	return fake.NewClientset().CoordinationV1().Leases(namespace)
}
