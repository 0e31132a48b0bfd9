// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
)

// leaseConfig returns the configuration of this member's Lease for one incarnation.
func (m *Member) leaseConfig(holder string) lease.Config {
	c := m.cfg.Lease
	c.Holder, c.Owner, c.Acquired, c.Faults = holder, m.pod.Owner, time.Now(), m.leaseFault
	return c
}

// request sends a request to the API server on a goroutine of its own. The result
// is posted as an event for this incarnation.
func (m *Member) request(a claim.Action) {
	incarnation, client := m.incarnation, m.client
	send := func(timeout time.Duration, verb string, f func(context.Context) (claim.Event, error)) {
		m.start(func() {
			ctx, cancel := context.WithTimeout(m.ctx, timeout)
			defer cancel()
			result, err := f(ctx)
			if err != nil && m.ctx.Err() == nil {
				m.requestFailed(incarnation, verb, err)
			}
			m.post(m.results, incarnation, result)
		})
	}
	switch a := a.(type) {
	case claim.GetLease:
		send(a.Timeout, "get", func(ctx context.Context) (claim.Event, error) {
			found, outcome, err := client.Get(ctx)
			if errors.Is(err, lease.ErrForeign) && strings.HasPrefix(found.Record.Holder, m.cfg.PodName+"_") {
				err = nil // another client removed the record from this Pod's Lease; the machine decides what to do
			}
			return claim.GetResult{Op: a.Op, Outcome: outcome, Lease: found}, err
		})
	case claim.CreateLease:
		send(a.Timeout, "create", func(ctx context.Context) (claim.Event, error) {
			created, outcome, err := client.Create(ctx, a.Record)
			return claim.WriteResult{Op: a.Op, Outcome: outcome, Lease: created}, err
		})
	case claim.WriteLease:
		// Later writes repeat the watermarks, because a member may list the Leases only then.
		a.Record.Watermarks = m.watermarks
		released := m.releases
		m.releases = 0
		send(a.Timeout, "update", func(ctx context.Context) (claim.Event, error) {
			// OnChange stops the work that belongs to the partitions but not to a queue.
			m.changes.await(ctx, released, min(m.cfg.StopGracePeriod, m.cfg.RenewPeriod/2))
			updated, outcome, err := client.Update(ctx, a.UID, a.Version, a.Record)
			return claim.WriteResult{Op: a.Op, Outcome: outcome, Lease: updated}, err
		})
	case claim.DeleteLease:
		send(a.Timeout, "delete", func(ctx context.Context) (claim.Event, error) {
			outcome, err := client.Delete(ctx, a.Name, a.UID, a.Version)
			return claim.DeleteResult{Op: a.Op, Outcome: outcome}, err
		})
	case claim.ListLeases:
		send(a.Timeout, "list", func(ctx context.Context) (claim.Event, error) {
			leases, outcome, err := client.List(ctx)
			return claim.ListResult{Op: a.Op, Outcome: outcome, Leases: leases}, err
		})
	case claim.EvictLease:
		send(a.Timeout, "update", func(ctx context.Context) (claim.Event, error) {
			void, outcome, err := client.Evict(ctx, a)
			if outcome == claim.OK {
				m.logger.Info("Evicted a member that was silent for the duration of its Lease", "lease", a.Name)
			}
			return claim.EvictResult{Op: a.Op, Outcome: outcome, Lease: void}, err
		})
	}
}

// requestFailed handles the error of a request, on the goroutine of the request. The
// machine handles most errors; some need an administrator.
func (m *Member) requestFailed(incarnation int, verb string, err error) {
	if forbidden := m.cfg.Access.Forbidden(err, verb); forbidden != nil {
		m.post(m.events, incarnation, refused{forbidden})
	} else if errors.Is(err, lease.ErrForeign) && verb == "get" {
		m.post(m.events, incarnation, refused{fmt.Errorf("shard: ring %s: %w; choose another LeasePrefix or delete it", m.cfg.Lease.Ring, err)})
	}
	if !apierrors.IsNotFound(err) { // the first read of a new member's Lease
		m.logger.V(2).Info("A request failed", "member", m.Published.View().Holder, "err", err)
	}
}

// watchFailed handles an error of the Lease watch. The watch calls it for each error.
func (m *Member) watchFailed(err error) {
	if forbidden := m.cfg.Access.Forbidden(err, "watch"); forbidden != nil {
		m.post(m.events, anyIncarnation, refused{forbidden})
		return
	}
	m.logger.V(2).Info("The Lease watch failed and will be retried", "err", err)
}

// leaseFault counts and logs a Lease that cannot be read. The watch and the requests call
// it, on their goroutines. The same error of a Lease is logged only once.
func (m *Member) leaseFault(name string, err error) {
	reason := "malformed"
	if errors.Is(err, lease.ErrForeign) {
		reason = "foreign"
	}
	m.cfg.Metrics.LeaseFault(reason)
	if m.faults.isNew(name, err.Error()) {
		m.logger.Info("A Lease has no valid record of a member", "lease", name, "reason", reason, "err", err)
	}
}
