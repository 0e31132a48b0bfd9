// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/shard"
)

// Dry runs are exempt from Config.OutsideWrites. A client of client-go sends the options of a
// deletion, and of an eviction, in the body and not in the query.
func TestOutsideWrites_DryRuns(t *testing.T) {
	var sent []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent = append(sent, r.Method+" "+r.URL.String()+" "+string(body))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}`))
	}))
	defer server.Close()
	for name, request := range map[string]func(c kubernetes.Interface, dryRun []string) error{
		"create": func(c kubernetes.Interface, dryRun []string) error {
			_, err := c.CoreV1().ConfigMaps("x").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "y"}}, metav1.CreateOptions{DryRun: dryRun})
			return err
		},
		"delete": func(c kubernetes.Interface, dryRun []string) error {
			return c.CoreV1().ConfigMaps("x").Delete(t.Context(), "y", metav1.DeleteOptions{DryRun: dryRun})
		},
		"deletecollection": func(c kubernetes.Interface, dryRun []string) error {
			return c.CoreV1().ConfigMaps("x").DeleteCollection(t.Context(), metav1.DeleteOptions{DryRun: dryRun}, metav1.ListOptions{})
		},
		"evict": func(c kubernetes.Interface, dryRun []string) error {
			return c.PolicyV1().Evictions("x").Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "y", Namespace: "x"}, DeleteOptions: &metav1.DeleteOptions{DryRun: dryRun}})
		},
		"evict with v1beta1": func(c kubernetes.Interface, dryRun []string) error {
			return c.PolicyV1beta1().Evictions("x").Evict(t.Context(), &policyv1beta1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "y", Namespace: "x"}, DeleteOptions: &metav1.DeleteOptions{DryRun: dryRun}})
		},
	} {
		for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
			t.Run(name+" in "+contentType, func(t *testing.T) {
				s, err := shard.New(fake.NewClientset(), shard.Config{Name: "foo", PodName: "a", Namespace: namespace, OutsideWrites: shard.RefuseOutsideWrites})
				if err != nil {
					t.Fatal(err)
				}
				config := &rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: contentType, AcceptContentTypes: runtime.ContentTypeJSON}}
				dryRun := []string{metav1.DryRunAll}
				plain, unwrapped := len(sent), kubernetes.NewForConfigOrDie(config)
				if err := request(unwrapped, dryRun); err != nil {
					t.Fatal(err)
				}
				config.Wrap(s.WrapTransport)
				client := kubernetes.NewForConfigOrDie(config)
				if err := request(client, dryRun); err != nil {
					t.Errorf("a dry run: %v", err)
				}
				if n := valueOf(t, s, "sharding_outside_writes_total"); n != 0 {
					t.Errorf("%v dry runs were counted", n)
				}
				if len(sent) != plain+2 || sent[plain] != sent[plain+1] {
					t.Errorf("the request was changed: %q", sent[plain:])
				}
				if err := request(client, nil); !errors.Is(err, shard.ErrOutsideWork) {
					t.Errorf("not a dry run: %v", err)
				}
			})
		}
	}
}

// A server that gets options in the body of a deletion ignores those in the query.
func TestOutsideWrites_NoDryRuns(t *testing.T) {
	s, err := shard.New(fake.NewClientset(), shard.Config{Name: "foo", PodName: "a", Namespace: namespace, OutsideWrites: shard.RefuseOutsideWrites})
	if err != nil {
		t.Fatal(err)
	}
	const options, maps = `{"kind":"DeleteOptions","dryRun":["All"]}`, "http://127.0.0.1/api/v1/namespaces/x/configmaps/y"
	for _, c := range []struct {
		name, method, url, body string
		stream, allowed         bool
	}{
		{"in the body", http.MethodDelete, maps, options, false, true},
		{"in the query, without a body", http.MethodDelete, maps + "?dryRun=All", "", false, true},
		{"in the query only, with a body", http.MethodDelete, maps + "?dryRun=All", `{"kind":"DeleteOptions"}`, false, false},
		{"in a body that can be read only once", http.MethodDelete, maps, options, true, false},
		{"in a body that is too large", http.MethodDelete, maps, strings.Repeat(" ", 64<<10) + options, false, false},
		{"in the body of something else", http.MethodPost, "http://127.0.0.1/apis/x/v1/eviction", `{"deleteOptions":{"dryRun":["All"]}}`, false, false},
		{"for a proxied server", http.MethodPut, "http://127.0.0.1/api/v1/namespaces/x/services/y/proxy/z?dryRun=All", "{}", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var body io.Reader = bytes.NewReader([]byte(c.body))
			if c.stream {
				body = io.MultiReader(body)
			}
			r, err := http.NewRequestWithContext(t.Context(), c.method, c.url, body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json; charset=utf-8")
			var count sent
			_, err = s.WrapTransport(&count).RoundTrip(r) //nolint:bodyclose // there is none
			if (err == nil) != c.allowed || (count == 1) != c.allowed {
				t.Errorf("%v; %d requests were sent", err, count)
			}
		})
	}
}
