// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Config is what a machine needs to know. All durations must be above 0; the
// caller has checked them against each other.
type Config struct {
	Member string // name on the ring
	Lease  string // name of the own Lease
	Holder string // "<pod>_<incarnation>", new for each machine
	PodUID string // "" if unknown
	// TakeOver allows the machine to void a Lease at once that was held by the
	// same Pod. The caller must know that no other process of that Pod is alive.
	TakeOver   bool
	Parameters ring.Parameters

	LeaseDuration time.Duration // peers wait this long before they evict
	RenewDeadline time.Duration // from the send time of a confirmed renewal to the fence
	RenewPeriod   time.Duration // between renewals; jittered downwards by up to a tenth
	WatchLagLimit time.Duration // own writes must come back through the watch within it
	DrainTimeout  time.Duration
	Coalesce      time.Duration // waits so long for more claims and releases to put into one write
	// StartupSettle is how long a new member that sees nobody at work waits for others that
	// start at the same time, before it claims everything. While one of them is
	// joining it waits up to five times as long. 0 for not at all.
	StartupSettle time.Duration
	// CacheSyncTimeout is how long a claimed partition waits at the most for [CaughtUp], and
	// how long a mark counts. 0 for not at all.
	CacheSyncTimeout time.Duration
	// Quarantine makes a new member wait one lease duration before it claims
	// anything: covers Leases that were deleted by hand together with members.
	Quarantine bool
	// Predecessor is the holder of this process's earlier machine, "" for the
	// first. Nothing that it started is still running.
	Predecessor string
	// Tombstones are those that the earlier machine knew of.
	Tombstones []Tombstone
}

// Why a machine ends. The caller makes a new one after the first three.
var (
	// ErrEvicted: a peer voided the Lease, or another process took it.
	ErrEvicted = errors.New("the Lease was evicted or taken over")
	// ErrVanished: the Lease was deleted.
	ErrVanished = errors.New("the Lease was deleted")
	// ErrWentBack: the server shows an older Lease than it has confirmed: it was restored from a backup.
	ErrWentBack = errors.New("the API server went back in time")
	// ErrDrainTimeout: work on a partition did not end in time. It was not released.
	ErrDrainTimeout = errors.New("work did not end within the drain timeout")
	// ErrStaleWatch: own writes did not come back through the watch although it was started again several times.
	ErrStaleWatch = errors.New("the Lease watch shows nothing new although writes succeed")
	// ErrStopped: the member has drained, released and deleted its Lease.
	ErrStopped = errors.New("stopped")
)

// stage is where the machine stands in its life.
type stage uint8

const (
	acquiring stage = iota // wants to hold the Lease of its name
	joining                // holds it; waits for a first list and the informers
	serving
	stopping // drains and releases
	leaving  // void; deletes the Lease
	ended
)

// Machine is the state of one member. Make it with [New].
type Machine struct {
	cfg    Config
	now    Time
	stage  stage
	rand   *rand.Rand
	out    []Action
	lastOp uint64

	own            own
	peers          map[string]*peer     // by Lease name, without the own
	removals       map[uint64]struct{}  // evictions and deletions of peers' Leases under way, by Op
	tombstones     map[string]tombstone // by holder
	expiredHolders map[string]Time      // holders whose tombstone has run out: not to be adopted again, until when
	watchProbe     watchProbe
	tombGeneration int

	synced         bool // the informers hold a complete copy
	stopAsked      bool
	stoppedAt      Time
	known          bool // a first quorum list was taken
	knownAt        Time
	servedAt       Time // when this member became active
	changedAt      Time // when a held Lease last came or went, or changed its phase
	hasSettled     bool // it has waited for others long enough
	otherHolder    otherHolder
	sameNameLeases map[string]sameNameLease // by UID

	inForce      ring.Parameters // what the fleet places by
	incompatible bool            // those are for another key: nothing is wanted
	view         *ring.Ring
	rank         int  // of this member in the view: whose turn it is to evict
	viewDirty    bool // the Leases have changed
	ringDirty    bool // and the ring may have to follow
	rebuilt      Time // when it last did; zero if never
	parts        partitions
	list         listing
	caches       caches
	stats        Stats
}

// Stats count what the machine has done.
type Stats struct {
	Heartbeats        uint64 // confirmed writes to the own Lease
	HeartbeatFailures uint64
	Conflicts         uint64 // failures that were conflicts
	Evictions         uint64 // of peers, done
	EvictionsRefused  uint64 // conflicts: the peer was alive, or another member was first
	FenceTrips        uint64
	Contested         uint64 // partitions found claimed by another member when they were to be activated
	Lists             uint64
	CacheWaits        uint64 // partitions that became active after the caches had caught up
	CacheWaitsGivenUp uint64 // that became active although they had not
	Relists           uint64
}

// New returns a machine that has done nothing yet: give it a [Tick].
func New(cfg Config) *Machine {
	m := &Machine{
		cfg:            cfg,
		rand:           rand.New(rand.NewPCG(xxh3.HashString(cfg.Holder), xxh3.HashString(cfg.Lease))),
		peers:          map[string]*peer{},
		removals:       map[uint64]struct{}{},
		tombstones:     map[string]tombstone{},
		expiredHolders: map[string]Time{},
		sameNameLeases: map[string]sameNameLease{},
		inForce:        cfg.Parameters,
		viewDirty:      true,
		list:           listing{gone: map[string]bool{}},
		caches:         caches{published: map[string]watermark{}, reached: Watermarks{}},
	}
	m.own.fenced = true
	m.parts = newPartitions(cfg.Parameters)
	m.view, _ = ring.New(cfg.Parameters, nil)
	return m
}

// Step takes one event and returns what is to be done, in order. The slice is
// valid until the next call.
func (m *Machine) Step(now Time, event Event) []Action {
	m.out = m.out[:0]
	if m.stage == ended {
		return nil
	}
	first := m.now == Time{}
	m.now = now
	if first {
		for _, t := range m.cfg.Tombstones {
			m.addTombstone(t, m.cfg.LeaseDuration)
		}
	}
	switch e := event.(type) {
	case Tick:
	case LeaseObserved:
		m.observe(e.Lease)
	case LeaseDeleted:
		m.handleDeleted(e)
	case Synced:
		m.synced = true
	case Stop:
		m.stopAsked = true
	case Idle:
		m.parts.idle(e.Partitions)
	case WatermarksReached:
		m.watermarksReached(e.Watermarks)
	case GetResult:
		m.got(e)
	case WriteResult:
		m.wrote(e)
	case DeleteResult:
		m.deleted(e)
	case ListResult:
		m.listed(e)
	case EvictResult:
		if e.Outcome == OK && e.Lease.Name == m.cfg.Lease {
			m.observeSameName(e.Lease)
		}
		m.evicted(e)
	}
	m.decide()
	return m.out
}

// decide does what the state asks for. It is called after every event and does
// nothing if there is nothing to do.
func (m *Machine) decide() {
	m.fence()
	m.expireTombstones()
	if m.stage != ended {
		m.advance()
	}
	if m.stage == serving || m.stage == stopping {
		if (m.viewDirty || m.ringDirty) && m.now.Reached(m.own.renewAt) {
			m.writeOwn() // a renewal does not wait until the ring was built
		}
		m.reconcilePartitions()
	}
	if m.stage == ended {
		return
	}
	m.writeOwn()
	if m.stage == joining || m.stage == serving {
		m.maybeList()
		m.guardWatch()
	}
	if m.stage == serving {
		m.evictSilent() // after writeOwn: renewals go first
		m.sweepVoid()
	}
}

// advance moves the machine to its next stage.
func (m *Machine) advance() {
	switch {
	case m.stopAsked && m.stage == acquiring && m.own.op == nil:
		m.end(ErrStopped)
	case m.stopAsked && (m.stage == joining || m.stage == serving):
		m.stage, m.stoppedAt = stopping, m.now
		m.viewDirty = true
	case m.stage == stopping && m.own.fenced && m.own.op == nil && m.own.version == "" && m.own.failures > 0 && m.parts.quiescent():
		// The server can't be reached. Nothing is worked on; the Lease runs out.
		m.end(ErrStopped)
	case m.stage == joining && m.known && m.synced:
		m.stage, m.servedAt = serving, m.now
		m.viewDirty = true
	}
}

// fence notices that the deadline of the last confirmed renewal has passed.
func (m *Machine) fence() {
	if m.own.fenced || !m.now.Reached(m.own.fence) {
		return
	}
	m.own.fenced = true
	m.stats.FenceTrips++
	if m.own.op == nil {
		m.own.version = "" // it may have been evicted meanwhile: read before writing
	}
	m.do(Fenced{})
}

// end is final. Whatever is claimed stays claimed on the Lease; the fence, or who
// evicted it, guards it.
func (m *Machine) end(reason error) {
	if m.stage == ended {
		return
	}
	if !m.own.fenced {
		m.own.fenced = true
		m.do(Fenced{})
	}
	m.stage = ended
	m.do(Ended{Reason: reason})
}

func (m *Machine) do(a Action) { m.out = append(m.out, a) }

func (m *Machine) op() uint64 {
	m.lastOp++
	return m.lastOp
}

// jitter takes up to a tenth off, so that members that were started together
// don't write together for ever.
func (m *Machine) jitter(d time.Duration) time.Duration {
	return d - time.Duration(m.rand.Int64N(int64(d)/10+1))
}
