// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"cmp"
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
			} else if err == nil {
				m.failures.succeeded(verb)
			}
			m.post(m.results, incarnation, result)
		})
	}
	switch a := a.(type) {
	case claim.GetLease:
		send(a.Timeout, "get", func(ctx context.Context) (claim.Event, error) {
			found, outcome, err := client.Get(ctx)
			unselected, retryAfter := errors.Is(err, lease.ErrForeign), lease.RetryAfter(err)
			if unselected && (found.UID == a.UID || found.Record.Member == m.cfg.Machine.Member || strings.HasPrefix(found.Record.Holder, m.cfg.Machine.Member+"_")) {
				err = nil // another client removed the record from this Pod's Lease; the machine decides what to do
			} else if unselected {
				outcome = claim.Unknown // it is not the machine's business, which would evict it
			}
			return claim.GetResult{Op: a.Op, Outcome: outcome, Lease: found, Unselected: unselected, RetryAfter: retryAfter}, err
		})
	case claim.CreateLease:
		a.Record.Kinds = m.Components.Kinds()
		send(a.Timeout, "create", func(ctx context.Context) (claim.Event, error) {
			created, outcome, err := client.Create(ctx, a.Record)
			return claim.WriteResult{Op: a.Op, Outcome: outcome, Lease: created, RetryAfter: lease.RetryAfter(err)}, err
		})
	case claim.WriteLease:
		// Later writes repeat the watermarks, because a member may list the Leases only then.
		a.Record.Watermarks, a.Record.Kinds = m.watermarks, m.Components.Kinds()
		released := m.releases
		m.releases = 0
		send(a.Timeout, "update", func(ctx context.Context) (claim.Event, error) {
			// OnChange stops the work that belongs to the partitions but not to a queue.
			m.changes.await(ctx, released, min(m.cfg.StopGracePeriod, m.cfg.Machine.RenewPeriod/2))
			updated, outcome, err := client.Update(ctx, a.UID, a.Version, a.Record)
			return claim.WriteResult{Op: a.Op, Outcome: outcome, Lease: updated, RetryAfter: lease.RetryAfter(err)}, err
		})
	case claim.DeleteLease:
		send(a.Timeout, "delete", func(ctx context.Context) (claim.Event, error) {
			outcome, err := client.Delete(ctx, a.Name, a.UID, a.Version)
			return claim.DeleteResult{Op: a.Op, Outcome: outcome, RetryAfter: lease.RetryAfter(err)}, err
		})
	case claim.ListLeases:
		send(a.Timeout, "list", func(ctx context.Context) (claim.Event, error) {
			leases, outcome, err := client.List(ctx)
			return claim.ListResult{Op: a.Op, Outcome: outcome, Leases: leases, RetryAfter: lease.RetryAfter(err)}, err
		})
	case claim.EvictLease:
		send(a.Timeout, verbEvict, func(ctx context.Context) (claim.Event, error) {
			void, outcome, err := client.Evict(ctx, a)
			switch outcome {
			case claim.OK:
				m.logRarely(&m.evictions, a.Name, nil, "Evicted a member that was silent for the duration of its Lease", "lease", a.Name)
			case claim.Conflict:
				m.logRarely(&m.conflicts, a.Name, nil, "An eviction was refused because the Lease has changed: its member is alive, or another member was faster", "lease", a.Name)
			}
			return claim.EvictResult{Op: a.Op, Outcome: outcome, Lease: void, RetryAfter: lease.RetryAfter(err)}, err
		})
	}
}

// verbEvict stands for updates of other members' Leases.
const verbEvict = "evict"

// requestFailed handles the error of a request, on the goroutine of the request. The
// machine repeats most requests; some errors need an administrator.
func (m *Member) requestFailed(incarnation int, verb string, err error) {
	m.cfg.Metrics.RequestFailed(verb, reasonOf(err))
	if errors.Is(err, lease.ErrForeign) && verb == "get" {
		err = fmt.Errorf("shard: ring %s: %w; choose another LeasePrefix or delete it", m.cfg.Lease.Ring, err)
		m.post(m.events, incarnation, refused{err})
		m.failures.add(verb, err, false)
		m.logRarely(&m.failureLog, rootCause(err), err, "Another client's Lease has the name of this member's", "member", m.Published.View().Holder)
		return
	}
	if expected(verb, err) {
		m.failures.succeeded(verb)
		if !apierrors.IsNotFound(err) { // the first read of a new member's Lease
			m.logger.V(2).Info("A request failed", "member", m.Published.View().Holder, "err", err)
		}
		return
	}
	used := verb
	if verb == verbEvict {
		used = "update"
	}
	err, noAccess := m.cfg.Access.Explain(err, used)
	known := m.failures.add(verb, err, noAccess)
	if noAccess && time.Since(known.denied) >= lease.DenialLasts {
		m.post(m.events, anyIncarnation, refused{err})
	}
	m.logRarely(&m.failureLog, rootCause(err), err, "Requests to the API server fail", "member", m.Published.View().Holder,
		"verb", verb, "requests", known.requests, "lasted", time.Since(known.since).Round(time.Second))
}

// watchAnswered handles the result of each list and watch request of the Lease watch, on
// the goroutine of the watch.
func (m *Member) watchAnswered(verb string, err error) {
	if err == nil {
		m.failures.succeeded(verb)
		return
	}
	m.requestFailed(anyIncarnation, verb, err)
}

// LastFailure returns the error of the request that failed last, nil if none fails now.
func (m *Member) LastFailure() error { return m.failures.last() }

// logRarely logs what happens again and again: see [throttle].
func (m *Member) logRarely(t *throttle, text string, err error, message string, details ...any) {
	ok, suppressed := t.allow(text)
	if !ok {
		return
	}
	if suppressed > 0 {
		details = append(details, "suppressed", suppressed)
	}
	if err != nil {
		m.logger.Error(err, message, details...)
	} else {
		m.logger.Info(message, details...)
	}
}

// errOldRecord is the fault of a Lease whose record is complete, but not the holder's last one.
var errOldRecord = errors.New("an old record, or that of another holder, was written to it: it claims everything")

// leaseFault counts and logs a Lease that cannot be read. The watch and the requests call
// it on their goroutines, and the loop.
func (m *Member) leaseFault(name string, err error) {
	reason := "malformed"
	if errors.Is(err, lease.ErrForeign) {
		reason = "foreign"
	}
	m.cfg.Metrics.LeaseFault(reason)
	m.logRarely(&m.faults, name, nil, "A Lease has no valid record of a member", "lease", name, "reason", reason, "err", short(err.Error()))
}

// noteLease logs what other clients have done to a Lease that the watch or a read shows.
func (m *Member) noteLease(l claim.Lease) {
	if l.Record.Void() && len(l.Finalizers) > 0 {
		m.logRarely(&m.finalizers, l.Name, nil, "A finalizer keeps a Lease that no member holds", "lease", l.Name, "finalizers", few(l.Finalizers))
	}
	if l.Name != m.cfg.Lease.Name {
		return
	}
	if r := l.Record; r.Holder != m.holder {
		m.successor = short(cmp.Or(r.EvictedBy, r.Holder))
	} else if r.Seq <= m.confirmed.Record.Seq && claim.CompareVersions(l.Version, m.confirmed.Version) > 0 && l.UID == m.confirmed.UID {
		m.logRarely(&m.edits, l.Name, nil, "Another client has written this member's Lease; the member keeps labels, annotations and finalizers of others, and restores everything else", "member", m.holder, "lease", l.Name)
	}
}
