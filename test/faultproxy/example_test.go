// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"

	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
)

// The server executes a write, but its client does not learn of it.
func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println("server:", r.Method, r.URL.Path)
	}))
	defer server.Close()
	gateway, err := faultproxy.StartGateway(1, &rest.Config{Host: server.URL})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer gateway.Close()

	gateway.Set(faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.DropResponse})
	url := gateway.Config().Host + "/apis/coordination.k8s.io/v1/namespaces/default/leases"
	response, err := http.Post(url, "application/json", nil)
	fmt.Println("client: reset:", errors.Is(err, syscall.ECONNRESET))
	if err == nil {
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
	fmt.Println("dropped responses:", gateway.Counts().Of(faultproxy.LeaseWrite, faultproxy.DropResponse))
	// Output:
	// server: POST /apis/coordination.k8s.io/v1/namespaces/default/leases
	// client: reset: true
	// dropped responses: 1
}
