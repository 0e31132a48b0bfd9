// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/internal/cachesync"
	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/member"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// writing returns a member that has an informer for Deployments and owns
// everything, without Run, and the context of a piece of its work.
func writing(t *testing.T) (*Sharder, context.Context) {
	t.Helper()
	s, err := New(fake.NewClientset(), Config{Name: "foo", PodName: "a", Namespace: "b"})
	if err != nil {
		t.Fatal(err)
	}
	s.member.Published.Change(func(v *member.View) {
		v.States = slices.Repeat([]ring.State{ring.Active}, len(v.States))
		v.Fence = &claim.Time{Mono: math.MaxInt64, Wall: math.MaxInt64}
	})
	NewInformer(s, &cache.ListWatch{}, &appsv1.Deployment{}, 0, nil)
	q := NewQueue(s, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	t.Cleanup(q.ShutDown)
	item := cache.ObjectName{Namespace: "x", Name: "y"}
	q.Add(item)
	got, _ := q.Get()
	return s, q.Context(context.Background(), got)
}

// roundTripper answers in the same way each time.
type roundTripper func(*http.Request) *http.Response

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

func answering(status int, contentType string, body io.Reader) roundTripper {
	return func(*http.Request) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(body)}
	}
}

func send(t *testing.T, s *Sharder, ctx context.Context, method string, server http.RoundTripper) io.ReadCloser {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.WrapTransport(server).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return response.Body
}

// A member learns the versions of its writes from the responses to all writes of its clients, and
// from Observe.
func TestWrapTransport_LearnsHowFarAMemberHasWritten(t *testing.T) {
	s, work := writing(t)
	for _, c := range []struct {
		name    string
		ctx     context.Context
		version string
	}{
		{"a write of no work", context.Background(), "122"},
		{"a write of its work", work, "123"},
	} {
		text := fmt.Sprintf(`{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"namespace":"x","name":"y","uid":"u","resourceVersion":%q}}`, c.version)
		body := send(t, s, c.ctx, http.MethodPost, answering(http.StatusCreated, runtime.ContentTypeJSON, strings.NewReader(text)))
		if _, err := io.ReadAll(body); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(claim.Watermarks{"v1.Deployment": c.version}, s.writes.Watermarks()); diff != "" { // before the body is closed
			t.Errorf("%s: watermarks (-want +got):\n%s", c.name, diff)
		}
		_ = body.Close()
	}
	s.Observe(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "z", UID: "v", ResourceVersion: "124"}})
	if diff := cmp.Diff(claim.Watermarks{"v1.Deployment": "124"}, s.writes.Watermarks()); diff != "" {
		t.Errorf("watermarks (-want +got):\n%s", diff)
	}
}

// What is behind a proxy may look like an object of the API server.
func TestWrapTransport_LearnsNothingFromProxiedServers(t *testing.T) {
	s, work := writing(t)
	for path, want := range map[string]claim.Watermarks{
		"/api/v1/namespaces/x/services/https:y:443/proxy/apis/apps/v1/namespaces/x/deployments": {},
		"/k8s/clusters/c/api/v1/namespaces/x/pods/y/proxy":                                      {},
		"/api/v1/nodes/y/proxy/":                               {},
		"/apis/x.example.com/v1/namespaces/x/services/y/proxy": {"v1.Deployment": "123"},
	} {
		for _, ctx := range []context.Context{context.Background(), work} {
			text := `{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"namespace":"x","name":"y","resourceVersion":"123"}}`
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			s.writes = cachesync.NewWriteTracker(&s.caches)
			response, err := s.WrapTransport(answering(http.StatusOK, runtime.ContentTypeJSON, strings.NewReader(text))).RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			if read, err := io.ReadAll(response.Body); err != nil || string(read) != text {
				t.Errorf("%s: read %q, %v", path, read, err)
			}
			_ = response.Body.Close()
			if diff := cmp.Diff(want, s.writes.Watermarks()); diff != "" {
				t.Errorf("%s: watermarks (-want +got):\n%s", path, diff)
			}
		}
	}
}

// A caller may pass the object of a write that has failed.
func TestObserve_Nil(t *testing.T) {
	s, _ := writing(t)
	s.Observe(nil)
	s.Observe((*unstructured.Unstructured)(nil))
	s.Observe((*appsv1.Deployment)(nil))
}

// Turned off, it costs nothing.
func TestCacheSyncTimeout_NegativeIsOff(t *testing.T) {
	cfg := Config{Name: "foo", PodName: "a", Namespace: "b", CacheSyncTimeout: -1}
	s, err := New(fake.NewClientset(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	NewInformer(s, &cache.ListWatch{}, &appsv1.Deployment{}, 0, nil)
	text := `{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"namespace":"x","name":"y","uid":"u","resourceVersion":"5"}}`
	body := send(t, s, t.Context(), http.MethodPost, answering(http.StatusCreated, runtime.ContentTypeJSON, strings.NewReader(text)))
	if _, err := io.ReadAll(body); err != nil {
		t.Fatal(err)
	}
	if w := s.writes.Watermarks(); len(w) > 0 || s.cfg.machine().CacheSyncTimeout != 0 {
		t.Errorf("watermarks %v, and waits for %v", w, s.cfg.machine().CacheSyncTimeout)
	}
	cfg.CacheSyncTimeout = 0
	if cfg.WithDefaults().CacheSyncTimeout != DefaultCacheSyncTimeout {
		t.Error("0 is not the default")
	}
}

// An answer that comes piece by piece is passed on piece by piece.
func TestWrapTransport_HoldsNothingBack(t *testing.T) {
	s, ctx := writing(t)
	server, pipe := io.Pipe()
	body := send(t, s, ctx, http.MethodPost, answering(http.StatusOK, runtime.ContentTypeJSON, server))
	for _, piece := range []string{`{"kind":`, `"Deployment"`, `}`} {
		go func() { _, _ = pipe.Write([]byte(piece)) }()
		read := make([]byte, 100)
		n, err := body.Read(read)
		if err != nil || string(read[:n]) != piece {
			t.Fatalf("read %q, %v instead of %q", read[:n], err, piece)
		}
	}
	_ = pipe.CloseWithError(io.ErrUnexpectedEOF)
	if n, err := body.Read(make([]byte, 1)); n != 0 || err != io.ErrUnexpectedEOF { //nolint:errorlint // passed on as it is
		t.Errorf("read %d, %v", n, err)
	}
	_ = body.Close()
}
