// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// The defaults of [Config].
const (
	DefaultLeaseDuration    = 15 * time.Second
	DefaultDrainGrace       = 5 * time.Second
	DefaultDrainTimeout     = 30 * time.Second
	DefaultDeletionWindow   = 10 * time.Minute
	DefaultStartupSettle    = time.Second
	DefaultCacheSyncTimeout = 5 * time.Second
)

// The environment variables that [Config] reads. Set them from the downward API.
const (
	EnvPodName      = "POD_NAME"
	EnvPodNamespace = "POD_NAMESPACE"
	EnvPodUID       = "POD_UID"
)

// OutsideWritePolicy is a value of Config.OutsideWrites.
type OutsideWritePolicy int

// The policies for mutating requests that belong to no work.
const (
	AllowOutsideWrites  OutsideWritePolicy = iota // sends them
	LogOutsideWrites                              // logs each, and sends it
	RefuseOutsideWrites                           // does not send them; they fail with [ErrOutsideWork]
)

// minDrift is the smallest difference between the rates of two clocks that a
// configuration must tolerate.
const minDrift = 0.05

// Config identifies this member and configures its ring. Only Name is required;
// the zero value of every other field means its default. A negative value turns off what can be
// turned off; the field's comment says so. The members of a
// ring share its Name, and should have the same Key, Partitions, VirtualNodes and Load. While a
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
	// RenewPeriod is the time between two heartbeats; at least 10 ms, and less than half of
	// RenewDeadline. Default 1/5 of LeaseDuration.
	RenewPeriod time.Duration
	// StopGracePeriod is how long work may take to stop after the fence has cancelled its
	// context. Default 2/15 of LeaseDuration.
	StopGracePeriod time.Duration
	// WatchLagLimit is the time within which the watch must show this member its own
	// heartbeat. At least RenewPeriod, less than LeaseDuration; default 2/5 of LeaseDuration.
	WatchLagLimit time.Duration
	// DrainGrace is how long work on a partition that is to be handed over may continue
	// before its context is cancelled. Most work ends by itself within that time, and then
	// it was not in vain. No other member works on the partition meanwhile. A fence cancels
	// contexts at once. At most one hour; negative: none; default 5 s.
	DrainGrace time.Duration
	// DrainTimeout is how long work on a partition that is to be handed over may
	// take to end after its context was cancelled. At least a millisecond and at most one year,
	// as all times that are not limited further; default 30 s.
	DrainTimeout time.Duration
	// DeletionWindow is how long a member remembers deletions, at least, to deliver them if it
	// gains their partitions. A deletion that still waits in its owner's queue, or for a retry,
	// when its partition is handed over is lost if it is older than that: choose it longer
	// than the longest backlog of your queues. At least LeaseDuration + DrainGrace +
	// DrainTimeout + CacheSyncTimeout, and at most four years; default 10 minutes, or that sum if
	// it is longer.
	// Negative: no deletions are remembered, which is safe if all objects that need work at
	// their deletion have finalizers.
	//
	// A remembered deletion takes about 400 bytes. No more than 50,000 are remembered for each
	// informer; what happens then is described with the package informer.
	DeletionWindow time.Duration
	// StartupSettle is how long a new member that sees no active member waits for others
	// that start at the same time, before it claims all partitions. The time begins with the
	// last Lease that such a member creates, and passes while the informers sync. It waits up
	// to five times as long while one of them is joining. Negative: it does not wait;
	// default 1 s.
	StartupSettle time.Duration
	// CacheSyncTimeout is how long a member that gains partitions waits, at most, for its
	// informers to show what the former owners wrote last through [Sharder.WrapTransport].
	// Informers that are up to date cause no wait, and usually they are up to date within
	// milliseconds. The informers of a member that was cut off need a while until they
	// watch again. Negative: no member waits for this one's writes, and it waits for none;
	// default 5 s.
	CacheSyncTimeout time.Duration
	// OutsideWrites is what [Sharder.WrapTransport] does with a mutating request that belongs
	// to no work, which means that its context comes neither from a queue's Context nor from
	// Acquire. Nothing keeps other members from writing to the same object at that time. With
	// [LogOutsideWrites] or [RefuseOutsideWrites], a code path around the queue is found before
	// it does harm. Leases, Events, reviews, tokens and dry runs are exempt. All others are
	// counted. Default: [AllowOutsideWrites].
	OutsideWrites OutsideWritePolicy
	// Quarantine makes a new member wait one LeaseDuration before it claims
	// anything. It is needed only if Leases of running members may be deleted while every
	// member that knew of them is deleted with its Lease, too. Default off.
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

// DefaultConfig returns the defaults for the ring of the given name, with the
// identity from the environment. Times that are derived from others
// stay zero, so that they follow when the others are changed.
func DefaultConfig(name string) Config { return Config{Name: name}.withIdentity().withConstants() }

// withDefaults returns a copy in which every field that was zero has its default.
// [New] uses this copy.
func (c Config) withDefaults() Config { return c.withIdentity().withConstants().withTimes() }

func (c Config) withIdentity() Config {
	if c.PodName == "" {
		c.PodName = os.Getenv(EnvPodName)
	}
	if c.PodName == "" {
		host, _ := os.Hostname() // Validate rejects an empty name
		c.PodName = strings.ToLower(host)
	}
	if c.Namespace == "" {
		c.Namespace = os.Getenv(EnvPodNamespace)
	}
	if c.Namespace == "" {
		if text, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace"); err == nil {
			c.Namespace = strings.TrimSpace(string(text))
		}
	}
	if c.PodUID == "" {
		c.PodUID = os.Getenv(EnvPodUID)
	}
	if c.LeasePrefix == "" && c.Name != "" {
		c.LeasePrefix = c.Name + "-"
	}
	return c
}

func (c Config) withConstants() Config {
	if c.Key.Name() == "" {
		c.Key = ByName
	}
	c.Partitions = or(c.Partitions, ring.DefaultPartitions)
	c.VirtualNodes = or(c.VirtualNodes, ring.DefaultVirtualNodes)
	c.Load = or(c.Load, ring.DefaultLoad)
	c.DrainGrace = or(c.DrainGrace, DefaultDrainGrace)
	c.DrainTimeout = or(c.DrainTimeout, DefaultDrainTimeout)
	c.StartupSettle = or(c.StartupSettle, DefaultStartupSettle)
	c.CacheSyncTimeout = or(c.CacheSyncTimeout, DefaultCacheSyncTimeout)
	c.LeaseDuration = or(c.LeaseDuration, DefaultLeaseDuration)
	return c
}

// withTimes derives the times that are not set from the others.
func (c Config) withTimes() Config {
	c.RenewDeadline = or(c.RenewDeadline, c.LeaseDuration*3/5)
	c.RenewPeriod = or(c.RenewPeriod, c.LeaseDuration/5)
	c.StopGracePeriod = or(c.StopGracePeriod, c.LeaseDuration*2/15)
	c.WatchLagLimit = or(c.WatchLagLimit, c.LeaseDuration*2/5)
	c.DeletionWindow = or(c.DeletionWindow, max(DefaultDeletionWindow, c.leastDeletionWindow()))
	return c
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// Validate checks the configuration with its defaults and returns every error, joined
// with errors.Join. [New] calls it.
func (c Config) Validate() error {
	set := c // without the defaults: only what the user has set can be wrong
	c = c.withDefaults()
	var errs []error
	fault := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
	if c.Name == "" {
		fault("Name", "is required: it names the ring, e.g. the operator's name")
	} else if problems := validation.IsDNS1123Label(c.Name); len(problems) > 0 {
		fault("Name", "%q is not a valid ring name: %s", c.Name, strings.Join(problems, "; "))
	}
	if len(c.PodUID) > lease.MaxUID {
		fault("PodUID", "%.100q has more than %d characters", c.PodUID, lease.MaxUID)
	}
	if c.PodName == "" {
		fault("PodName", "is not known: set the environment variable %s from the downward API (metadata.name)", EnvPodName)
	} else if problems := validation.IsDNS1123Subdomain(c.PodName); len(problems) > 0 {
		fault("PodName", "%q is not a valid Pod name: %s", c.PodName, strings.Join(problems, "; "))
	}
	if c.Namespace == "" {
		fault("Namespace", "is not known: set the environment variable %s from the downward API (metadata.namespace)", EnvPodNamespace)
	} else if problems := validation.IsDNS1123Label(c.Namespace); len(problems) > 0 {
		fault("Namespace", "%q is not a valid namespace name: %s", c.Namespace, strings.Join(problems, "; "))
	}
	if problems := validation.IsDNS1123Subdomain(c.LeasePrefix + "x"); len(problems) > 0 && c.LeasePrefix != c.Name+"-" {
		fault("LeasePrefix", "%q is not a valid prefix of a Lease name: %s", c.LeasePrefix, strings.Join(problems, "; "))
	}
	for key, value := range c.LeaseLabels {
		if problems := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(problems) > 0 {
			fault("LeaseLabels", "%q=%q is not a valid label: %s", key, value, strings.Join(problems, "; "))
		}
		if prefix, _, _ := strings.Cut(lease.LabelRing, "/"); strings.HasPrefix(key, prefix+"/") {
			fault("LeaseLabels", "%q: the prefix %s/ is reserved for this library; choose another prefix", key, prefix)
		}
	}
	parameters := c.parameters()
	if c.Key.Name() == Unfiltered.Name() {
		fault("Key", "unfiltered is only for informers whose handlers see all objects: pass it to WrapInformer, and choose another key for the ring, by which queues determine what this member works on")
		parameters.Key = ByName.Name() // this fault is reported
	} else if c.Key.Name() == ByController.Name() || c.Key.Name() == ByClusterController.Name() {
		fault("Key", "%s is only for the informers of dependents; choose another key for the ring", c.Key.Name())
		parameters.Key = ByName.Name() // this fault is reported
	} else if _, err := c.Key.Resolve(c.Key); err != nil {
		fault("Key", "%v", err)
		parameters.Key = ByName.Name()
	}
	if err := parameters.Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.OutsideWrites < AllowOutsideWrites || c.OutsideWrites > RefuseOutsideWrites {
		fault("OutsideWrites", "%d is not a policy", c.OutsideWrites)
	}
	before := len(errs)
	c.validateTimes(set, fault)
	if len(errs) == before { // the limits of one time depend on the others
		c.validateRelations(set, fault)
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("shard: invalid configuration: %w", errors.Join(errs...))
}

// maxTime is the longest time that a configuration may contain. Sums of several times must not
// overflow.
const maxTime = 365 * 24 * time.Hour

// The shortest times that a configuration may contain. With shorter ones, the user has forgotten
// the unit: a RenewPeriod of 3 is 3 ns, and would flood the API server.
const (
	minTime        = time.Millisecond
	minRenewPeriod = 10 * time.Millisecond
)

// validateTimes checks each time by itself.
func (c Config) validateTimes(set Config, fault func(field, format string, args ...any)) {
	if d := set.LeaseDuration; d > 0 && d < minTime {
		fault("LeaseDuration", "%v is too short: it must be at least 1s; was a unit such as time.Second forgotten?", d)
	} else if d := c.LeaseDuration; d < time.Second || d%time.Second != 0 || d > claim.MaxLeaseDuration {
		fault("LeaseDuration", "%v must be a whole number of seconds, at least one and at most %v", d, claim.MaxLeaseDuration)
	}
	for _, f := range []struct {
		name     string
		value    time.Duration
		least    time.Duration
		most     time.Duration
		optional bool // negative means off
	}{
		{"RenewDeadline", set.RenewDeadline, minTime, maxTime, false},
		{"RenewPeriod", set.RenewPeriod, minRenewPeriod, maxTime, false},
		{"StopGracePeriod", set.StopGracePeriod, minTime, maxTime, false},
		{"WatchLagLimit", set.WatchLagLimit, minTime, maxTime, false},
		{"DrainGrace", set.DrainGrace, minTime, time.Hour, true}, // no member can gain the partition meanwhile
		{"DrainTimeout", set.DrainTimeout, minTime, maxTime, false},
		{"DeletionWindow", set.DeletionWindow, minTime, 4 * maxTime, true},
		{"StartupSettle", set.StartupSettle, minTime, maxTime, true},
		{"CacheSyncTimeout", set.CacheSyncTimeout, minTime, maxTime, true},
	} {
		switch {
		case f.value < 0 && !f.optional:
			fault(f.name, "%v must be greater than 0, or 0 for the default", f.value)
		case f.value > 0 && f.value < f.least:
			fault(f.name, "%v is too short: it must be at least %v; was a unit such as time.Second forgotten?", f.value, f.least)
		case f.value > f.most:
			fault(f.name, "%v must be at most %v", f.value, f.most)
		}
	}
}

// validateRelations checks times that limit each other. A time that was not set follows the
// others, so the fault is in one that was set; the first of those that fault names.
func (c Config) validateRelations(set Config, fault func(field, format string, args ...any)) {
	if c.RenewDeadline <= 2*c.RenewPeriod { // one lost heartbeat must not stop a member
		switch {
		case set.RenewPeriod == 0:
			fault("RenewDeadline", "%v must be more than twice RenewPeriod (%v)", c.RenewDeadline, c.RenewPeriod)
		case set.RenewDeadline != 0:
			fault("RenewPeriod", "%v must be less than half of RenewDeadline (%v)", c.RenewPeriod, c.RenewDeadline)
		case c.RenewPeriod >= c.LeaseDuration:
			fault("RenewPeriod", "%v must be less than 3/10 of LeaseDuration (%v); were the two swapped?", c.RenewPeriod, c.LeaseDuration)
		default:
			fault("RenewPeriod", "%v must be less than 3/10 of LeaseDuration (%v)", c.RenewPeriod, c.LeaseDuration)
		}
	} else if c.WatchLagLimit < c.RenewPeriod {
		if set.WatchLagLimit == 0 {
			fault("RenewPeriod", "%v must be at most 2/5 of LeaseDuration (%v), or set WatchLagLimit", c.RenewPeriod, c.LeaseDuration)
		} else {
			fault("WatchLagLimit", "%v must be at least RenewPeriod (%v)", c.WatchLagLimit, c.RenewPeriod)
		}
	}
	if c.WatchLagLimit >= c.LeaseDuration {
		fault("WatchLagLimit", "%v must be less than LeaseDuration (%v)", c.WatchLagLimit, c.LeaseDuration)
	}
	if c.Drift() < minDrift {
		most := time.Duration(float64(c.LeaseDuration) * (1 - minDrift) / (1 + minDrift)).Round(time.Millisecond)
		name, value, other, and := "RenewDeadline", c.RenewDeadline, c.StopGracePeriod, "StopGracePeriod"
		if set.RenewDeadline == 0 {
			name, value, other, and = and, other, value, name
		}
		fault(name, "%v and %s (%v) must add up to less than %v with a LeaseDuration of %v, for clocks whose rates differ by %.0f %%",
			value, and, other, most, c.LeaseDuration, 100*minDrift)
	}
	if least := c.leastDeletionWindow(); c.DeletionWindow >= 0 && c.DeletionWindow < least {
		fault("DeletionWindow", "%v must be at least LeaseDuration + DrainGrace + DrainTimeout + CacheSyncTimeout (%v), or a handover loses deletions; a negative value turns the memory of deletions off", c.DeletionWindow, least)
	}
}

// leastDeletionWindow is how long a deletion must be remembered, so that the next owner knows
// of it if its former owner saw it last, however the partition is handed over: after a crash
// the Lease must expire; otherwise a drain ends. In both cases the new owner may then wait for
// its caches.
func (c Config) leastDeletionWindow() time.Duration {
	return c.LeaseDuration + max(c.DrainGrace, 0) + c.DrainTimeout + max(c.CacheSyncTimeout, 0)
}

// Drift returns the difference in rate between two members' clocks that the
// configuration tolerates: 0.15 is 15 %.
func (c Config) Drift() float64 {
	c = c.withDefaults()
	working := (c.RenewDeadline + c.StopGracePeriod).Seconds()
	return (c.LeaseDuration.Seconds() - working) / (c.LeaseDuration.Seconds() + working)
}

func (c Config) parameters() ring.Parameters {
	return ring.Parameters{Key: c.Key.Name(), Partitions: c.Partitions, VirtualNodes: c.VirtualNodes, Load: c.Load}
}

func (c Config) leaseName() string { return lease.Name(c.LeasePrefix, c.PodName) }

// coalesce is how long claims and releases are collected before they are written,
// because a change of members arrives as a handful of watch events.
const coalesce = 20 * time.Millisecond

// machine returns the settings of the state machine.
func (c Config) machine() claim.Config {
	return claim.Config{
		Member: c.PodName, Lease: c.leaseName(), Parameters: c.parameters(),
		LeaseDuration: c.LeaseDuration, RenewDeadline: c.RenewDeadline, RenewPeriod: c.RenewPeriod,
		WatchLagLimit: c.WatchLagLimit, DrainGrace: max(c.DrainGrace, 0), DrainTimeout: c.DrainTimeout,
		Coalesce: coalesce, StartupSettle: max(c.StartupSettle, 0), Quarantine: c.Quarantine, CacheSyncTimeout: max(c.CacheSyncTimeout, 0),
	}
}
