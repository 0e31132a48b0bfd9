// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// apiServer is an http.RoundTripper in front of a cluster's Leases, so that a member can
// use client-go's own clientset. It rejects the requests that busy selects, as API Priority
// and Fairness does.
type apiServer struct {
	client kubernetes.Interface

	mu   sync.Mutex
	busy func(verb string) (retryAfter int) // 0: not busy; silent: it never responds
	end  chan struct{}                      // closed by cut
	// expired reports whether the watches end with the error that their version is too old.
	expired bool
}

const silent = -1

// cut ends the running watches, with the error that their version is too old or without one.
func (s *apiServer) cut(expired bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = expired
	close(s.end)
	s.end = make(chan struct{})
}

func (s *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	leases, rest, found := strings.Cut(r.URL.Path, "/namespaces/"+namespace+"/leases")
	if !found || !strings.HasPrefix(leases, "/apis/coordination.k8s.io/") {
		return respond(http.StatusNotFound, nil, &metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound}), nil
	}
	verb, name := strings.ToLower(r.Method), strings.TrimPrefix(rest, "/")
	if query := r.URL.Query(); verb == "get" && query.Get("watch") != "" {
		verb = "watch"
	} else if verb == "get" && name == "" {
		verb = "list"
	}
	s.mu.Lock()
	after := s.busy(verb)
	s.mu.Unlock()
	if after == silent {
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	}
	if after > 0 {
		header := http.Header{"Retry-After": {strconv.Itoa(after)}}
		return respond(http.StatusTooManyRequests, header, &apierrors.NewTooManyRequests("busy", after).ErrStatus), nil
	}
	var l coordinationv1.Lease
	if r.Body != nil {
		if err := json.NewDecoder(r.Body).Decode(&l); err != nil && verb != "delete" && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	api := s.client.CoordinationV1().Leases(namespace)
	options := metav1.ListOptions{LabelSelector: r.URL.Query().Get("labelSelector"), ResourceVersion: r.URL.Query().Get("resourceVersion")}
	var result any
	var err error
	switch verb {
	case "get":
		result, err = api.Get(r.Context(), name, metav1.GetOptions{})
	case "post":
		result, err = api.Create(r.Context(), &l, metav1.CreateOptions{})
	case "put":
		result, err = api.Update(r.Context(), &l, metav1.UpdateOptions{})
	case "delete":
		result, err = &metav1.Status{Status: metav1.StatusSuccess}, api.Delete(r.Context(), name, metav1.DeleteOptions{})
	case "list":
		result, err = api.List(r.Context(), options)
	case "watch":
		if r.URL.Query().Get("sendInitialEvents") != "" {
			return nil, errors.New("a streamed list is as late as the watch (R34)")
		}
		return s.watch(r, options)
	}
	if err != nil {
		var status apierrors.APIStatus
		if !errors.As(err, &status) {
			return nil, err
		}
		of := status.Status()
		return respond(int(of.Code), nil, &of), nil
	}
	return respond(http.StatusOK, nil, result), nil
}

func (s *apiServer) watch(r *http.Request, options metav1.ListOptions) (*http.Response, error) {
	w, err := s.client.CoordinationV1().Leases(namespace).Watch(r.Context(), options)
	if err != nil {
		return nil, err
	}
	body, stream := io.Pipe()
	s.mu.Lock()
	end := s.end
	s.mu.Unlock()
	go func() {
		defer w.Stop()
		defer stream.Close()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-end:
				s.mu.Lock()
				expired := s.expired
				s.mu.Unlock()
				if expired {
					status := apierrors.NewResourceExpired("too old").Status()
					status.APIVersion, status.Kind = "v1", "Status"
					_ = json.NewEncoder(stream).Encode(map[string]any{"type": watch.Error, "object": status})
				}
				return
			case e, ok := <-w.ResultChan():
				if !ok || json.NewEncoder(stream).Encode(map[string]any{"type": e.Type, "object": typed(e.Object)}) != nil {
					return
				}
			}
		}
	}()
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}, nil
}

// typed sets the kind and the API version of a Lease, as a server does.
func typed(obj any) any {
	if l, ok := obj.(*coordinationv1.Lease); ok {
		l = l.DeepCopy()
		l.APIVersion, l.Kind = "coordination.k8s.io/v1", "Lease"
		return l
	}
	return obj
}

func respond(code int, header http.Header, body any) *http.Response {
	if list, ok := body.(*coordinationv1.LeaseList); ok {
		list.APIVersion, list.Kind = "coordination.k8s.io/v1", "LeaseList"
	}
	if status, ok := body.(*metav1.Status); ok {
		status.APIVersion, status.Kind = "v1", "Status"
	}
	text, _ := json.Marshal(typed(body))
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/json")
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(bytes.NewReader(text))}
}

// startOn is start with client-go's own clientset.
func startOn(t *testing.T, busy func(verb string) int) (*member, *apiServer) {
	t.Helper()
	const pod = "a"
	server := &apiServer{client: shardtest.NewCluster().Client(pod), busy: func(string) int { return 0 }, end: make(chan struct{})}
	client := kubernetes.NewForConfigOrDie(&rest.Config{
		Host: "https://example.com", Transport: server, ContentConfig: rest.ContentConfig{ContentType: "application/json"},
	})
	m := start(t, client, pod)
	time.Sleep(5 * time.Second)
	if !m.OwnsKey("x/y") {
		t.Fatalf("the member owns nothing: %v", m.Ready())
	}
	server.mu.Lock()
	server.busy = busy
	server.mu.Unlock()
	return m, server
}

// One of three servers rejects all requests for two minutes.
func TestRun_RenewsPastAServerThatShutsDown(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			m, _ := startOn(t, func(string) int {
				if random.IntN(3) > 0 {
					return 0
				}
				return 5
			})
			for range 1200 {
				time.Sleep(100 * time.Millisecond)
				if m.Fenced() {
					t.Errorf("seed %d: fenced, although two of three requests are served", seed)
					break
				}
			}
			if err := m.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A server that is too busy has certainly not carried out a write: the member needs no read
// before it repeats it, and waits longer than without a wish of the server.
func TestRun_ABusyServerGetsNoReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := map[string]int{}
		m, server := startOn(t, func(verb string) int {
			if sent[verb]++; verb == "put" {
				return 1
			}
			return 0
		})
		time.Sleep(6 * time.Second) // a renewal is due within 3 s, and the fence follows 6 s later
		server.mu.Lock()
		reads, writes := sent["get"], sent["put"]
		server.busy = func(string) int { return 0 }
		server.mu.Unlock()
		if reads > 0 || writes < 3 || writes > 8 {
			t.Errorf("%d reads and %d writes", reads, writes)
		}
		time.Sleep(2 * time.Second)
		if m.Fenced() || !m.OwnsKey("x/y") {
			t.Error("fenced")
		}
		if err := m.end(); err != nil {
			t.Error(err)
		}
	})
}

// The watch ends, and the server rejects the next one once, or never responds to it. Or the
// watch ends because its version is too old, and the list gets no response.
func TestRun_WatchesAgain(t *testing.T) {
	for name, test := range map[string]struct {
		verb    string
		busy    int
		expired bool
	}{
		"after a rejection":                {"watch", 32, false}, // the longest delay that API Priority and Fairness asks for
		"after a watch without a response": {"watch", silent, false},
		"after a list without a response":  {"list", silent, true},
		"after a rejected list":            {"list", 32, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				times := 0
				m, server := startOn(t, func(verb string) int {
					if verb != test.verb || times > 0 {
						return 0
					}
					times++
					return test.busy
				})
				server.cut(test.expired)
				select {
				case err := <-m.done:
					t.Fatal("Run returned ", err)
				case <-time.After(2 * time.Minute):
				}
				if times == 0 {
					t.Error("no request was rejected")
				}
				if err := m.end(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
