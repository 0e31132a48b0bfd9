// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bufio"
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

// ErrNotReady is wrapped in the error that Ready returns, together with the replica's own
// message, if the replica reports that it is not ready.
var ErrNotReady = errors.New("not ready")

// Ready requests /readyz. It returns nil if the replica is on the ring and may work,
// [ErrNotReady] if it reports that it is not ready, and another error if it does not respond.
func (p *Process) Ready(ctx context.Context) error {
	code, text, err := p.get(ctx, "/readyz")
	switch {
	case err != nil:
		return err
	case code == http.StatusServiceUnavailable:
		return fmt.Errorf("%s is %w: %s", p, ErrNotReady, strings.TrimSpace(text))
	case code != http.StatusOK:
		return fmt.Errorf("%s: /readyz returned %d: %s", p, code, text)
	}
	return nil
}

// Healthy requests /healthz.
func (p *Process) Healthy(ctx context.Context) error {
	code, text, err := p.get(ctx, "/healthz")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s is not healthy: %s", p, strings.TrimSpace(text))
	}
	return err
}

// Report returns the replica's own report about the ring.
func (p *Process) Report(ctx context.Context) (inspect.Report, error) {
	var report inspect.Report
	code, text, err := p.get(ctx, "/debug/shard?format=json")
	if err != nil {
		return report, err
	}
	if code != http.StatusOK {
		return report, fmt.Errorf("%s: /debug/shard returned %d: %s", p, code, strings.TrimSpace(text))
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		return report, fmt.Errorf("%s: /debug/shard: %w", p, err)
	}
	return report, nil
}

// Metrics has all metrics of a replica at one moment, in Prometheus' text format.
type Metrics string

// Sum adds up the series of a metric that have all of the given labels, each written
// as name="value". It is 0 if there is none.
func (m Metrics) Sum(name string, labels ...string) (float64, error) {
	return sum(string(m), name, labels)
}

// Metrics returns all metrics.
func (p *Process) Metrics(ctx context.Context) (Metrics, error) {
	code, text, err := p.get(ctx, "/metrics")
	if err != nil {
		return "", err
	}
	if code != http.StatusOK {
		return "", fmt.Errorf("%s: /metrics returned %d: %s", p, code, text)
	}
	return Metrics(text), nil
}

// Metric returns one metric; see [Metrics.Sum].
func (p *Process) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	metrics, err := p.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	return metrics.Sum(name, labels...)
}

// sum adds up series in Prometheus' text format.
func sum(text, name string, labels []string) (total float64, err error) {
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		series, value, found := cutLast(lines.Text(), " ")
		if !found || (series != name && !strings.HasPrefix(series, name+"{")) {
			continue
		}
		matches := true
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

func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

// client opens a connection for each request, because a reused one might lead to a process
// that was paused and not to the process that has its port now.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (p *Process) get(ctx context.Context, path string) (code int, text string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", fmt.Errorf("ask %s: %w", p, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, "", fmt.Errorf("ask %s: %w", p, err)
	}
	return response.StatusCode, string(body), nil
}
