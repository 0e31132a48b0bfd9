// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// status is what the loop publishes at each step for probes and metrics. Immutable.
type status struct {
	at           time.Time // of the step; zero before Run
	serving      bool
	incompatible bool
	duplicate    string
	watchFresh   bool
	counts       metrics.Counts
	blockers     map[string]int // partitions, by the Pod that claims them
	draining     int            // partitions
}

func (l *loop) newStatus() *status {
	return &status{
		at:           time.Now(),
		serving:      l.machine.Serving(),
		incompatible: l.machine.Incompatible(),
		duplicate:    l.machine.Duplicate(),
		watchFresh:   l.machine.WatchFresh(),
		counts:       l.retiredStats.Plus(l.machine.Stats()),
		blockers:     l.blockers(),
		draining:     l.machine.Draining().Len(),
	}
}

// blockers counts the partitions that this member wants and that are not active yet, by
// the Pod of the member that claims them.
func (l *loop) blockers() map[string]int {
	if len(l.wanted) == 0 {
		return nil
	}
	byPod := map[string]int{}
	for holder, n := range l.machine.Blockers() {
		pod, _, _ := strings.Cut(holder, "_") // a Pod name contains no underscore
		byPod[pod] += n
	}
	return byPod
}

// Healthy is for a liveness probe. It returns nil unless the loop has hung. A member
// that is fenced or waiting is healthy, because a restart would not help. Before Run the
// member is healthy.
func (s *Sharder) Healthy() error {
	now := s.status.Load()
	if limit := 2 * s.cfg.LeaseDuration; !now.at.IsZero() && time.Since(now.at) > limit {
		return fmt.Errorf("the loop of ring %s has made no progress for %v", s.cfg.Name, time.Since(now.at).Round(time.Second))
	}
	return nil
}

// Ready is for a readiness probe. It returns nil while this member is on the ring and not
// fenced. A member that must wait until all members with another Config.Key have left
// is also ready. Otherwise a rolling update would wait for it forever.
func (s *Sharder) Ready() error {
	now := s.status.Load()
	switch {
	case now.duplicate != "":
		return fmt.Errorf("another live process, %s, holds the Lease of Pod %s: each replica needs a name of its own", now.duplicate, s.cfg.PodName)
	case now.incompatible:
		return nil
	case !now.serving:
		return errors.New("this member has not joined the ring: its informers have not synced, or it does not hold its Lease yet")
	case s.Fenced():
		return errors.New("this member is fenced: no renewal of its Lease was confirmed in time")
	}
	return nil
}

// HealthHandler serves [Sharder.Healthy]: status 200, or 500 with the reason.
func (s *Sharder) HealthHandler() http.Handler {
	return probe(s.Healthy, http.StatusInternalServerError)
}

// ReadyHandler serves [Sharder.Ready]: status 200, or 503 with the reason.
func (s *Sharder) ReadyHandler() http.Handler { return probe(s.Ready, http.StatusServiceUnavailable) }

func probe(check func() error, code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := check(); err != nil {
			w.WriteHeader(code)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	})
}

// stateCounts counts the partitions in each state.
func (n *snapshot) stateCounts() (counts [ring.Active + 1]int) {
	for _, state := range n.states {
		counts[state]++
	}
	return counts
}
