// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

const (
	resolution = 20 * time.Millisecond  // between two requests while a step is measured
	leisurely  = 100 * time.Millisecond // at other times
	answerTime = time.Second            // timeout of one request
)

// watcher asks replicas what they may work on, and updates the board.
type watcher struct {
	board *board
	// closely is true while a step is measured.
	closely atomic.Bool
	client  http.Client
}

func newWatcher(b *board) *watcher {
	return &watcher{board: b, client: http.Client{
		Timeout:   answerTime,
		Transport: &http.Transport{MaxIdleConnsPerHost: 1}, // a separate transport: no proxy, closed with the demo
	}}
}

// watch asks one replica until it or ctx ends. While a replica does not answer, it counts
// as the owner of what it owned when it last answered.
func (w *watcher) watch(ctx context.Context, m int, r *replica) {
	for {
		sent := time.Now()
		if report, err := w.ask(ctx, r); err == nil {
			w.board.observe(m, sent, time.Now(), owns(report))
			w.board.fence(m, report.Fenced)
		}
		period := leisurely
		if w.closely.Load() {
			period = resolution
		}
		select {
		case <-ctx.Done():
			return
		case <-r.exited:
			return
		case <-time.After(period - time.Since(sent)):
		}
	}
}

// ask returns a replica's own report.
func (w *watcher) ask(ctx context.Context, r *replica) (*inspect.Report, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.address+"/debug/shard?format=json", nil)
	if err != nil {
		return nil, err
	}
	answer, err := w.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }() // nothing depends on this error
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s returned %s", r.name, answer.Status)
	}
	var report inspect.Report
	if err := json.NewDecoder(answer.Body).Decode(&report); err != nil {
		return nil, fmt.Errorf("read the report of %s: %w", r.name, err)
	}
	return &report, nil
}

// owns returns a function that reports whether the member of the report may work on a
// point of the hash space.
func owns(report *inspect.Report) func(point uint64) bool {
	return func(point uint64) bool {
		if report.Fenced || len(report.Partitions) == 0 {
			return false
		}
		return report.Partitions[ring.PartitionOf(point, len(report.Partitions))].State == ring.Active.String()
	}
}

func (w *watcher) close() { w.client.CloseIdleConnections() }
