// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/internal/member"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Healthy is for a liveness probe. It returns nil unless the loop has hung, or so many
// requests have not returned although their time is over that the member sends no more. A
// member that is fenced or waiting, also for work to end, is healthy, because a restart
// would not help. Before Run, and after it has returned nil, the member is healthy.
func (s *Sharder) Healthy() error {
	now := s.member.Published.View().Status
	if limit := 2 * s.cfg.LeaseDuration; !now.At.IsZero() && time.Since(now.At) > limit {
		return fmt.Errorf("the loop of ring %s has made no progress for %v", s.cfg.Name, time.Since(now.At).Round(time.Second))
	}
	if s.calls.Stuck() {
		return fmt.Errorf("ring %s: %w", s.cfg.Name, lease.ErrNoReturn)
	}
	return nil
}

// Ready is for a readiness probe. It returns nil while this member is on the ring and not
// fenced. The ring has room for 256 members, the oldest; others are not ready. A member that must wait until all members with another Config.Key have left
// is also ready. Otherwise a rolling update would wait for it forever.
//
// Ready also returns an error if this member has owned nothing for two lease durations although
// no live member has its partitions: a rolling update must not stop the members that still own
// theirs. And it returns one if the ring contains a Pod of another workload, by its name, whose
// informers have no kind in common with this one's: two operators must not share a ring.
func (s *Sharder) Ready() error {
	now := s.member.Published.View()
	return s.ready(now, s.member.Published.FencedIn(now))
}

func (s *Sharder) ready(view *member.View, fenced bool) error {
	now := view.Status
	switch {
	case now.Duplicate != "":
		return fmt.Errorf("another live process, %s, holds the Lease of Pod %s: each replica needs a name of its own", now.Duplicate, s.cfg.PodName)
	case now.Incompatible:
		return nil
	case !now.Serving:
		if unsynced := s.member.Components.Unsynced(); len(unsynced) > 0 {
			return s.because(fmt.Sprintf("this member has not joined the ring: informers have not synced (were they started?): %s", strings.Join(unsynced, ", ")))
		}
		if now.WaitsFor != "" {
			return s.because("this member has not joined the ring: " + now.WaitsFor)
		}
		return s.because("this member has not joined the ring")
	case fenced:
		return s.because("this member is fenced: no renewal of its Lease was confirmed in time")
	case now.CrowdedOut:
		return fmt.Errorf("this member is not on the ring and owns nothing: the ring has room for %d members, and so many older ones are active", ring.MaxMembers)
	case now.Warnings.Stalled != "":
		return errors.New(now.Warnings.Stalled)
	case now.Warnings.OtherOperator != "":
		return errors.New(now.Warnings.OtherOperator)
	}
	return nil
}

// because returns an error with the error of the request that failed last, if one fails now.
func (s *Sharder) because(why string) error {
	if err := s.member.LastFailure(); err != nil {
		return fmt.Errorf("%s; last error: %w", why, err)
	}
	return errors.New(why)
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
