// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"
)

// upstream is a server that a gateway forwards to.
type upstream struct {
	base         *url.URL
	connections  *http.Transport
	roundTripper http.RoundTripper // connections, with the credentials of the configuration
}

func newUpstream(config *rest.Config) (*upstream, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	// Not rest.TransportFor, whose result is shared and outlives the gateway. HTTP/1.1,
	// because there a held watch does not block other requests.
	connections := &http.Transport{TLSClientConfig: tls, DisableCompression: true, MaxIdleConnsPerHost: 32}
	roundTripper, err := rest.HTTPWrappersForConfig(config, connections)
	if err != nil {
		return nil, err
	}
	return &upstream{base: base, connections: connections, roundTripper: roundTripper}, nil
}

// hopByHop has the headers that concern one connection, and the client's credentials.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Authorization",
}

func (u *upstream) forward(ctx context.Context, r *http.Request, body []byte) (*http.Response, error) {
	target := *r.URL
	target.Scheme, target.Host = u.base.Scheme, u.base.Host
	prefix := strings.TrimSuffix(u.base.Path, "/")
	target.Path = prefix + target.Path
	if target.RawPath != "" {
		target.RawPath = prefix + target.RawPath
	}
	out, err := http.NewRequestWithContext(ctx, r.Method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("forward %s %s: %w", r.Method, r.URL, err)
	}
	out.Header = r.Header.Clone()
	for _, name := range hopByHop {
		out.Header.Del(name)
	}
	return u.roundTripper.RoundTrip(out)
}
