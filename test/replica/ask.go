// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
)

// ErrNotReady is wrapped in the error of a response 503, as of Ready from a replica that is not ready.
var ErrNotReady = errors.New("not ready")

// Ready requests /readyz. It returns nil if the replica is on the ring and may work, [ErrNotReady] with the replica's own message
// if it is not ready, and another error if it does not respond.
func (p *Process) Ready(ctx context.Context) error {
	_, err := p.get(ctx, "/readyz")
	return err
}

// Healthy requests /healthz.
func (p *Process) Healthy(ctx context.Context) error {
	_, err := p.get(ctx, "/healthz")
	return err
}

// Report returns the replica's own report about the ring.
func (p *Process) Report(ctx context.Context) (report inspect.Report, err error) {
	text, err := p.get(ctx, "/debug/shard?format=json")
	if err != nil {
		return report, err
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		return report, fmt.Errorf("%s: /debug/shard: %w", p, err)
	}
	return report, nil
}

// Metrics has all metrics of a replica at one moment, in Prometheus' text format.
type Metrics string

// Metrics returns all metrics.
func (p *Process) Metrics(ctx context.Context) (Metrics, error) {
	text, err := p.get(ctx, "/metrics")
	return Metrics(text), err
}

// Metric returns one metric; see [Metrics.Sum].
func (p *Process) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	metrics, err := p.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	return metrics.Sum(name, labels...)
}

// Sum adds up the series of a metric that have all of the given labels, each written as name="value". It is 0 if there is none.
func (m Metrics) Sum(name string, labels ...string) (total float64, err error) {
	for line := range strings.Lines(string(m)) {
		line = strings.TrimSpace(line)
		space := strings.LastIndexByte(line, ' ')
		if space < 0 {
			continue
		}
		series, value := line[:space], line[space+1:]
		matches := series == name || strings.HasPrefix(series, name+"{")
		for _, label := range labels {
			matches = matches && (strings.Contains(series, "{"+label) || strings.Contains(series, ","+label))
		}
		if !matches {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", series, err)
		}
		total += v
	}
	return total, nil
}

// client opens a connection for each request, because a reused one might lead to a process
// that was paused and not to the process that has its port now.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// get returns the body of a response 200.
func (p *Process) get(ctx context.Context, path string) (text string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", p, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	text = string(body)
	switch {
	case err != nil:
		return "", fmt.Errorf("ask %s: %w", p, err)
	case response.StatusCode == http.StatusServiceUnavailable:
		return "", fmt.Errorf("%s is %w: %s", p, ErrNotReady, strings.TrimSpace(text))
	case response.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%s: %s returned %d: %s", p, path, response.StatusCode, strings.TrimSpace(text))
	}
	return text, nil
}
