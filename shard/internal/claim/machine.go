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

// Config configures a machine. All durations must be positive; the caller must have
// validated them against each other.
type Config struct {
	Member string // name on the ring
	Lease  string // name of the member's own Lease
	Holder string // "<pod>_<incarnation>", new for each machine
	PodUID string // "" if unknown
	// TakeOver allows the machine to void a Lease that was held by the same Pod at
	// once (R3). The caller must know that no other process of that Pod is alive.
	TakeOver   bool
	Parameters ring.Parameters

	LeaseDuration time.Duration // peers wait this long before they evict the member
	RenewDeadline time.Duration // from the send time of a confirmed renewal to the fence
	RenewPeriod   time.Duration // between renewals; jittered downwards by up to a tenth
	WatchLagLimit time.Duration // the member's own writes must come back through the watch within it
	// DrainGrace is the time for work to end by itself before a drain cancels its contexts
	// (R10). 0: they are cancelled at once.
	DrainGrace   time.Duration
	DrainTimeout time.Duration // for the rest of a drain, counted after DrainGrace
	Coalesce     time.Duration // how long to collect claims and releases for one write
	// StartupSettle is how long a new member that sees no claims waits for other members
	// that start at the same time, before it claims everything. The time begins with the
	// last Lease of such a member. While one of them is joining, it waits up to five times
	// as long. 0 disables the wait.
	StartupSettle time.Duration
	// CacheSyncTimeout is how long a claimed partition waits at most for
	// [WatermarksReached], and how long a watermark counts. 0 disables the wait.
	CacheSyncTimeout time.Duration
	// Quarantine makes a new member wait one lease duration before it claims
	// anything: it covers Leases that were deleted by hand while members were replaced.
	Quarantine bool
	// Predecessor is the holder of this process's earlier machine, "" for the first
	// machine. Nothing that the earlier machine started is still running.
	Predecessor string
	// Tombstones are those that the earlier machine knew of.
	Tombstones []Tombstone
	// Knowledge is that of the earlier machine, which had the same watch.
	Knowledge Knowledge
}

// The reasons why a machine ends. After the first four, the caller creates a new machine.
var (
	// ErrEvicted: a peer voided the Lease.
	ErrEvicted = errors.New("the Lease was evicted")
	// ErrTakenOver: another process holds the Lease, or another client edited its holder, or
	// applied an older record of this member again.
	ErrTakenOver = errors.New("the Lease was taken over or edited")
	// ErrVanished: the Lease was deleted.
	ErrVanished = errors.New("the Lease was deleted")
	// ErrWentBack: the server shows an older state of the Lease than it has confirmed,
	// because its database was restored from a backup.
	ErrWentBack = errors.New("the API server was restored to an earlier state")
	// ErrDrainTimeout: work on a partition did not end in time. It was not released.
	ErrDrainTimeout = errors.New("work did not end within the drain timeout")
	// ErrStaleWatch: the member's own writes did not come back through the watch although
	// the watch was restarted several times (R34).
	ErrStaleWatch = errors.New("the Lease watch is stale although writes succeed")
	// ErrStopped: the member has drained, released and voided its Lease.
	ErrStopped = errors.New("stopped")
)

// stage is a phase in the life of a machine.
type stage uint8

const (
	acquiring stage = iota // tries to acquire the Lease of its name
	joining                // holds the Lease; waits for a first list and the informers
	serving
	stopping // drains and releases
	leaving  // its Lease is void; deletes it
	ended
)

// Machine is the state machine of one member. Create it with [New].
type Machine struct {
	cfg    Config
	now    Time
	stage  stage
	rand   *rand.Rand
	out    []Action
	lastOp uint64

	own           own
	peers         map[string]*peer    // by Lease name, without this member's Lease
	removals      map[uint64]struct{} // evictions and deletions of peers' Leases in flight, by Op
	tombstones    map[tombstoneKey]tombstone
	lapsed        map[tombstoneKey]bool // those whose time this newcomer has counted to its end (R29)
	tombstonesDue bool                  // there is one that no write has published
	tombstonesPut uint64                // how many were added
	watched       string                // the version to which the watch has come
	knowledge     Knowledge
	wentBack      bool // the server was restored: what this machine knew of peers is no longer true
	newcomerSeen  newcomerSeen
	ended         map[string]bool // UIDs of Leases that were seen void
	watchProbe    watchProbe

	synced         bool // the informers have synced
	stopAsked      bool
	stoppedAt      Time
	leftAt         Time // when its Lease became void
	sweepFailed    bool // since then, a deletion got no response
	known          bool // a first quorum list has arrived
	knownAt        Time
	servedAt       Time // when this member became active
	changedAt      Time // when a held Lease was last added or removed, or changed its phase
	cameAt         Time // when another member's Lease was last added
	hasSettled     bool // it has waited for other members long enough
	otherHolder    otherHolder
	sameNameLeases map[string]sameNameLease // by UID

	view      *ring.Ring
	placed    placement // that of the view
	rank      int       // of this member in the view, -1 if it is not there; the first one deletes void Leases
	viewDirty bool      // the Leases have changed
	ringDirty bool      // the ring may have to be computed again
	building  building
	parts     partitions
	list      listing
	caches    caches
	stats     Stats
}

// Stats count what the machine has done.
type Stats struct {
	Heartbeats        uint64 // confirmed writes to the member's Lease
	HeartbeatFailures uint64
	Conflicts         uint64 // failures that were conflicts
	Evictions         uint64 // of peers, done
	EvictionsRefused  uint64 // conflicts: the peer was alive, or another member was faster
	FenceTrips        uint64
	Contested         uint64 // partitions that another member was found to claim at activation
	Lists             uint64
	CacheWaits        uint64 // partitions that became active after the caches had reached the watermarks
	CacheWaitsGivenUp uint64 // partitions that became active although the caches had not
	Relists           uint64
	OldRecords        uint64 // readable records on peers' Leases that were not the last ones of their holders (R32)
}

// New returns a machine that has done nothing yet: pass it a [Tick] to start it.
func New(cfg Config) *Machine {
	m := &Machine{
		cfg:            cfg,
		rand:           rand.New(rand.NewPCG(xxh3.HashString(cfg.Holder), xxh3.HashString(cfg.Lease))),
		peers:          map[string]*peer{},
		removals:       map[uint64]struct{}{},
		tombstones:     map[tombstoneKey]tombstone{},
		lapsed:         map[tombstoneKey]bool{},
		ended:          map[string]bool{},
		knowledge:      cfg.Knowledge.clone(),
		sameNameLeases: map[string]sameNameLease{},
		placed:         placement{inForce: cfg.Parameters, parameters: cfg.Parameters},
		rank:           -1,
		viewDirty:      true,
		caches:         caches{published: map[string]map[string]watermark{}},
	}
	m.own.fenced, m.own.ends = true, map[string]bool{}
	m.parts = newPartitions(cfg.Parameters)
	m.view, _ = ring.New(cfg.Parameters, nil)
	return m
}

// Step handles one event and returns the actions to carry out, in order. The slice is
// valid until the next call. A machine that has ended returns none; the caller still passes it
// what the watch shows, until the next machine starts.
func (m *Machine) Step(now Time, event Event) []Action {
	m.out = m.out[:0]
	first := m.now == Time{}
	m.now = now
	if m.stage == ended {
		m.followWatch(event)
		return nil
	}
	if first {
		for _, t := range m.cfg.Tombstones {
			if m.mayAdopt(t) {
				m.putTombstone(t, now.Add(t.Remaining))
			}
		}
	}
	switch e := event.(type) {
	case Tick:
	case LeaseObserved, WatchProgress, LeaseDeleted:
		m.followWatch(e)
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
	case RingBuilt:
		m.ringBuilt(e)
	case EvictResult:
		if e.Outcome == OK && e.Lease.Name == m.cfg.Lease {
			m.observeSameName(e.Lease)
		}
		m.evicted(e)
	}
	m.decide()
	return m.out
}

// followWatch handles what the watch shows. A machine that has ended does so too, because the
// next one inherits what it knows (R64).
func (m *Machine) followWatch(event Event) {
	switch e := event.(type) {
	case LeaseObserved:
		if e.Listed {
			m.noteFirst(e.Lease)
		}
		if was, known := m.knowledge.leases[e.Lease.UID]; known && e.Ahead && CompareVersions(e.Lease.Version, was.Version) < 0 {
			e.Lease = was // a list has shown it to the earlier machine, and the watch has not
		}
		m.observe(e.Lease, e.Listed)
		if p := m.peers[e.Lease.Name]; p != nil && p.lease.UID == e.Lease.UID {
			p.ahead = e.Ahead || p.ahead && CompareVersions(e.Lease.Version, p.lease.Version) < 0
			p.unseen, p.relisted = false, p.relisted && !e.Ahead
		}
		if !e.Listed {
			m.watched = e.Lease.Version
		}
	case WatchProgress:
		m.progress(e)
	case LeaseDeleted:
		m.handleDeleted(e)
	}
}

// decide requests whatever the present state requires. It is called after every event and
// does nothing if there is nothing to do.
func (m *Machine) decide() {
	m.fence()
	m.expireTombstones()
	m.updateKnowledge()
	m.judgeList()
	if m.stage != ended {
		m.advance()
	}
	if m.stage == serving || m.stage == stopping {
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
		m.evictSilent() // after writeOwn: renewals go first (R28)
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
		// The server cannot be reached. No work is in flight; the Lease expires.
		m.end(ErrStopped)
	case m.stage == joining && m.known && m.synced && m.mayBecomeActive():
		m.stage, m.servedAt = serving, m.now
		m.viewDirty = true
	}
}

// fence checks whether the deadline of the last confirmed renewal has passed (R36).
func (m *Machine) fence() {
	if m.own.fenced || !m.now.Reached(m.own.fence) {
		return
	}
	m.own.fenced = true
	m.list.answer = nil
	m.stats.FenceTrips++
	if m.own.op == nil {
		m.own.version = "" // the member may have been evicted meanwhile: read before writing (R4)
	}
	m.do(Fenced{})
}

// end ends the machine for good. Its claims stay on the Lease: until a peer evicts this
// member, they block others, and the fence has stopped the work.
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

// jitter shortens d by up to a tenth, so that members that were started together do not
// write at the same time for ever.
func (m *Machine) jitter(d time.Duration) time.Duration {
	return d - time.Duration(m.rand.Int64N(int64(d)/10+1))
}
