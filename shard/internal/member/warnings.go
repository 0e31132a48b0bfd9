// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// warnings is what the loop notices about the ring as a whole, and an administrator has to
// change. The loop owns it.
type warnings struct {
	looked      time.Time // when the loop last looked
	ownsNothing time.Time // since when this member has waited for partitions in vain; zero if it does not
	obstructed  time.Time // since when something keeps a partition from it
	mixed       time.Time // since when another operator is on the ring
	reported    Warnings
}

// Warnings are parts of a Status.
type Warnings struct {
	// Stalled says why this member has owned nothing for two lease durations (R89).
	Stalled string
	// OtherOperator names a member that belongs to another operator (R88).
	OtherOperator string
	OtherKinds    int // members on the ring that watch other kinds than this one
	// Texts are the warnings for the status page.
	Texts []string
}

// warn looks at the peers, at most once a second.
func (m *Member) warn() Warnings {
	w := &m.warnings
	now := time.Now()
	if now.Sub(w.looked) < time.Second {
		return w.reported
	}
	w.looked, w.reported = now, Warnings{}
	m.compareKinds(now)
	m.findObstacles(now)
	return w.reported
}

// compareKinds reports peers that watch other kinds than this member (R88). During a rolling
// update that adds a kind, this is as it should be: if members were not ready then, the update
// would not continue. They are therefore only counted and logged, unless they have no kind in
// common and belong to two workloads.
func (m *Member) compareKinds(now time.Time) {
	w, own := &m.warnings, m.Components.Kinds()
	mine := workload(m.cfg.Machine.Member)
	var first, other *claim.Record
	var firstLease, otherLease string
	for _, p := range m.machine.Peers() {
		r := p.Lease.Record
		if own == "" || r.Kinds == "" || r.Kinds == own || r.Void() || r.Phase != claim.PhaseActive {
			continue
		}
		w.reported.OtherKinds++
		if first == nil {
			first, firstLease = &r, p.Lease.Name
		}
		if theirs := workload(r.Member); other == nil && mine != "" && theirs != "" && theirs != mine && disjoint(own, r.Kinds) {
			other, otherLease = &r, p.Lease.Name
		}
	}
	if other == nil {
		w.mixed = time.Time{}
	} else if first, firstLease = other, otherLease; w.mixed.IsZero() {
		w.mixed = now
	}
	if first == nil {
		return
	}
	text := fmt.Sprintf("the holder of Lease %s watches %s, and this member %s: objects of kinds that a member does not watch are not worked on while it owns them", firstLease, short(first.Kinds), short(own))
	if other != nil && now.Sub(w.mixed) >= m.cfg.Machine.RenewPeriod {
		w.reported.OtherOperator = fmt.Sprintf("another operator is on ring %s: %s. Give each operator a ring name of its own", m.cfg.Lease.Ring, text)
	}
	w.reported.Texts = append(w.reported.Texts, text)
	m.logRarely(&m.kinds, firstLease, nil, "Members of this ring watch different kinds; this is right only while a rolling update changes them", "member", m.holder,
		"lease", firstLease, "kinds", short(first.Kinds), "own", short(own), "members", w.reported.OtherKinds)
}

// disjoint reports whether two lists of kinds have none in common. A hash of many kinds shows
// nothing: only kinds have upper-case letters.
func disjoint(a, b string) bool {
	if strings.ToLower(a) == a || strings.ToLower(b) == b {
		return false
	}
	of := strings.Split(a, ",")
	return !slices.ContainsFunc(strings.Split(b, ","), func(kind string) bool { return slices.Contains(of, kind) })
}

// Pods of a Deployment, ReplicaSet, DaemonSet or StatefulSet have the name of that object and
// generated parts. The characters are those of k8s.io/apimachinery/pkg/util/rand.
var generated = regexp.MustCompile(`^(.+?)(?:(?:-[bcdfghjklmnpqrstvwxz2456789]{6,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}|-[0-9]+)$`)

// maxGenerated is the length from which on a generated name of a Pod may be cut.
const maxGenerated = 63

// workload returns the name of the object that has created a Pod, as far as the Pod's name shows
// it. It returns "" if the name may be cut.
func workload(pod string) string {
	if len(pod) >= maxGenerated {
		return ""
	}
	if parts := generated.FindStringSubmatch(pod); parts != nil {
		return parts[1]
	}
	return pod
}

// findObstacles reports what has kept partitions from this member for two lease durations (R89).
func (m *Member) findObstacles(now time.Time) {
	w := &m.warnings
	lasted := func(since *time.Time, is bool) bool {
		switch {
		case !is:
			*since = time.Time{}
		case since.IsZero():
			*since = now
		}
		return is && now.Sub(*since) >= 2*m.cfg.Machine.LeaseDuration
	}
	obstacles := m.machine.Obstacles()
	nothing := lasted(&w.ownsNothing, m.machine.OwnsNothing())
	obstructed := lasted(&w.obstructed, len(obstacles) > 0)
	text := "it waits for its Lease watch"
	if len(obstacles) > 0 {
		text = m.explain(obstacles[0])
	}
	if nothing {
		w.reported.Stalled = fmt.Sprintf("this member has owned nothing for %v although it should: %s", now.Sub(w.ownsNothing).Round(time.Second), text)
	}
	if nothing || obstructed {
		w.reported.Texts = append(w.reported.Texts, text)
		m.logRarely(&m.obstacles, "", nil, "Partitions of this member have no owner, and it may not work on them yet", "member", m.holder,
			"obstacles", len(obstacles), "longest", text)
	}
}

// explain says what an obstacle is and what helps.
func (m *Member) explain(o claim.Obstacle) string {
	remaining := o.Remaining.Round(time.Second)
	switch {
	case o.Lease != "":
		what := "whose member is silent"
		if o.Edited {
			what = "whose record was edited, so that it claims everything"
		}
		return fmt.Sprintf("Lease %s, %s, keeps partitions for up to %v. If its Pod is alive, its member must reach the API server: restart the Pod. "+
			"If the Pod is gone for good and you cannot wait, scale this operator to 0, run \"kubectl -n %s delete lease %s\", and scale it up again; "+
			"while a member runs, it remembers the Lease after a deletion",
			o.Lease, what, remaining, m.cfg.Lease.Namespace, o.Lease)
	case o.Holder != "":
		return fmt.Sprintf("the Lease of %s was deleted while it was held, and counts for %v more. If that process is gone for good and you cannot wait, scale this operator to 0, delete its Leases, and scale it up again", short(o.Holder), remaining)
	}
	return fmt.Sprintf("Leases may have been deleted before this member started, and count for up to %v more. If no other process of this operator runs and you cannot wait, scale it to 0, delete its Leases, and scale it up again", remaining)
}
