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

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

const (
	resolution = 20 * time.Millisecond  // between two questions while a step is measured
	leisurely  = 100 * time.Millisecond // at other times
	answerTime = time.Second            // for one answer
)

// watcher asks replicas what they may work on, and tells the board.
type watcher struct {
	board *board
	// closely is set while a step is measured.
	closely atomic.Bool
	client  http.Client
}

func newWatcher(b *board) *watcher {
	return &watcher{board: b, client: http.Client{
		Timeout:   answerTime,
		Transport: &http.Transport{MaxIdleConnsPerHost: 1}, // one of its own: no proxy, closed with the demo
	}}
}

// watch asks one replica until it has ended or ctx has. A replica that doesn't
// answer is taken to own what it owned when it last did.
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

// ask returns what a replica says of itself.
func (w *watcher) ask(ctx context.Context, r *replica) (*shard.Report, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.address+"/debug/shard?format=json", nil)
	if err != nil {
		return nil, err
	}
	answer, err := w.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }() // read to its end, or of no use
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", r.name, answer.Status)
	}
	var report shard.Report
	if err := json.NewDecoder(answer.Body).Decode(&report); err != nil {
		return nil, fmt.Errorf("read what %s says: %w", r.name, err)
	}
	return &report, nil
}

// owns tells of a point of the hash space whether the member that made the report
// may work there.
func owns(report *shard.Report) func(point uint64) bool {
	return func(point uint64) bool {
		if report.Fenced || len(report.Partitions) == 0 {
			return false
		}
		return report.Partitions[ring.PartitionOf(point, len(report.Partitions))].State == ring.Active.String()
	}
}

func (w *watcher) close() { w.client.CloseIdleConnections() }
