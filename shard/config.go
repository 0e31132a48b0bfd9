// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"maps"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Config identifies this member and configures its ring. Only Name is required;
// the zero value of every other field means its default. All members of a
// ring should have the same Name, Key, Partitions, VirtualNodes and Load. While a
// rolling update changes them, the values of the oldest member apply to all.
type Config struct {
	// Name identifies the ring. All replicas of one operator share it, and nothing else in
	// the namespace may use it. At most 63 characters, a valid label value and DNS name.
	Name string
	// PodName is this member's name on the ring. It is unique among the replicas and stays
	// the same after a restart in place. Default: the environment variable POD_NAME,
	// else the host name.
	PodName string
	// Namespace is the namespace of the Leases. Default: the environment variable
	// POD_NAMESPACE, else the namespace of the service account.
	Namespace string
	// PodUID is the UID of this member's Pod. If it is set, the Pod owns the Lease, and a
	// container that restarts takes over its Lease at once. Default: the
	// environment variable POD_UID, else read from the Pod if that is allowed, else none.
	PodUID string
	// LeasePrefix and PodName form the name of the Lease. Default: Name and "-".
	LeasePrefix string
	// LeaseLabels are set on this member's Lease in addition to the label that names the
	// ring. Members find each other only by the label of the ring, so LeaseLabels may differ
	// between members and change in a rolling update. None may have the prefix
	// operator-scaling.tom-ludwig.github.io/.
	LeaseLabels map[string]string

	// Key determines which objects stay together. Default ByName. ByController and
	// ByClusterController are for the informers of dependents, not for the ring.
	Key Key
	// Partitions is the number of slices of the hash space; a slice is the unit of
	// ownership. 1 to 65536, default 509.
	Partitions int
	// VirtualNodes is the number of positions of each member in the hash space; 1 to
	// 1000, default 20.
	VirtualNodes int
	// Load limits a member's share: at most ceil(Partitions / members × Load)
	// partitions. At least 1, default 1.25.
	Load float64

	// LeaseDuration is how long a silent member keeps what it owns. Whole seconds,
	// at least one; default 15 s.
	LeaseDuration time.Duration
	// RenewDeadline is how long after the send time of its last confirmed renewal a
	// member may work. Default 3/5 of LeaseDuration. The sum of RenewDeadline and
	// StopGracePeriod must be low enough for clocks whose rates differ by 5 %:
	// LeaseDuration × 0.95 > (RenewDeadline + StopGracePeriod) × 1.05.
	RenewDeadline time.Duration
	// RenewPeriod is the time between two heartbeats; less than half of
	// RenewDeadline. Default 1/5 of LeaseDuration.
	RenewPeriod time.Duration
	// StopGracePeriod is how long work may take to stop after the fence has cancelled its
	// context. Default 2/15 of LeaseDuration.
	StopGracePeriod time.Duration
	// WatchLagLimit is the time within which the watch must show this member its own
	// heartbeat. At least RenewPeriod, less than LeaseDuration; default 2/5 of LeaseDuration.
	WatchLagLimit time.Duration
	// DrainTimeout is how long work on a partition that is to be handed over may
	// take to end after its context was cancelled. Default 30 s.
	DrainTimeout time.Duration
	// DeletionWindow is how long a member remembers deletions of objects that it does
	// not own, to deliver them if it gains their partitions. Default 60 s.
	DeletionWindow time.Duration
	// StartupSettle is how long a new member that sees no active member waits for others
	// that start at the same time, before it claims all partitions. It waits up to five
	// times as long while one of them is joining. Default 1 s.
	StartupSettle time.Duration
	// CacheSyncTimeout is how long a member that gains partitions waits, at most, for its
	// informers to show what the former owners wrote last through [WrapTransport].
	// Informers that are up to date cause no wait, and usually they are up to date within
	// milliseconds. The informers of a member that was cut off need a while until they
	// watch again. Default 5 s.
	CacheSyncTimeout time.Duration
	// Quarantine makes a new member wait one LeaseDuration before it claims
	// anything. It is needed only if Leases may be deleted by hand while every member
	// that knew of them is deleted, too. Default off.
	Quarantine bool

	// OnOverrun is called with the items of the work that is still in flight
	// StopGracePeriod after the fence. From then on, peers may work on the same items. A
	// process that cannot stop its work should exit here. OnOverrun is called on a
	// goroutine of its own, whatever else is blocked, once for each fence, but not while an
	// earlier call is in progress. Run waits for it, but not longer than StopGracePeriod.
	// Default: log.
	OnOverrun func(items []string)
	// OnChange is called with each step of this member on the ring, in order and one
	// at a time. It is meant for audits, or for work that belongs to a partition and not to
	// an object. It is called on a goroutine of its own, and may use this Sharder.
	//
	// It may be slow, but then it learns late of the changes that follow. No heartbeat, no
	// fence and no other partition waits for it. Only the write that makes partitions
	// available to peers waits until OnChange has returned from their Draining and Released,
	// but not longer than StopGracePeriod or half of RenewPeriod: within that time OnChange
	// must have stopped the work that belongs to them. If more than 1000 changes wait, they
	// are replaced by a Left with the reason [ErrChangesDropped] and by what this member has
	// then: Joined, Activated, Fenced. Run returns when all changes are delivered, but does
	// not wait for that longer than StopGracePeriod. Default: none.
	OnChange func(Change)
}

// WithPodName returns a copy with another PodName.
func (c Config) WithPodName(name string) Config { c.PodName = name; return c }

// WithNamespace returns a copy with another Namespace.
func (c Config) WithNamespace(namespace string) Config { c.Namespace = namespace; return c }

// WithLeasePrefix returns a copy with another LeasePrefix.
func (c Config) WithLeasePrefix(prefix string) Config { c.LeasePrefix = prefix; return c }

// WithLeaseLabels returns a copy with other LeaseLabels.
func (c Config) WithLeaseLabels(labels map[string]string) Config {
	c.LeaseLabels = maps.Clone(labels)
	return c
}

// WithKey returns a copy with another Key.
func (c Config) WithKey(key Key) Config { c.Key = key; return c }

// WithHeartbeat returns a copy with another interval between heartbeats and another
// duration of the Lease. The other times are derived from the duration.
func (c Config) WithHeartbeat(interval, duration time.Duration) Config {
	c.RenewPeriod, c.LeaseDuration = interval, duration
	c.RenewDeadline, c.StopGracePeriod, c.WatchLagLimit = 0, 0, 0
	return c
}

// WithHashRing returns a copy with other ring parameters.
func (c Config) WithHashRing(partitions, virtualNodes int, load float64) Config {
	c.Partitions, c.VirtualNodes, c.Load = partitions, virtualNodes, load
	return c
}

func (c Config) parameters() ring.Parameters {
	return ring.Parameters{Key: c.Key.Name(), Partitions: c.Partitions, VirtualNodes: c.VirtualNodes, Load: c.Load}
}
