// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// server is the API server with its database, for Leases only: every write has a higher
// resourceVersion, an update or deletion is carried out only at the UID and version that it
// names, and reads return the current state.
type server struct {
	w        *sim
	revision uint64
	uids     int
	leases   map[string]claim.Lease
	foreign  map[string]bool // holders whose Lease another client has written
	log      []change        // every write; a watch is an index into it
	at       map[string]int  // version -> index in the log, since the last restore
	watches  []*watch

	down    bool
	refuses bool    // while down, requests fail at once; otherwise they get no response
	storm   float64 // share of the requests that is answered with an error

	backup   map[string]claim.Lease // a backup of the database
	backedUp uint64                 // its revision
	restores int
}

// change is one write.
type change struct {
	name          string
	before, after *claim.Lease // nil: it did not exist
	listed        bool         // not a write, but the event of a watch for a list without the Lease
}

func newServer(w *sim) *server {
	return &server{w: w, revision: 100, leases: map[string]claim.Lease{}, at: map[string]int{}, foreign: map[string]bool{}}
}

// commit carries out a write; after is nil for a deletion. Versions increase by more than one,
// since other objects are written, too.
func (s *server) commit(name string, after *claim.Lease) claim.Lease {
	s.revision += 1 + s.w.rand.Uint64N(40)
	version := strconv.FormatUint(s.revision, 10)
	c := change{name: name}
	if before, exists := s.leases[name]; exists {
		c.before = &before
	}
	if after == nil {
		delete(s.leases, name)
	} else {
		after.Version = version
		if after.Record.Void() {
			after.Record.Claims = claim.Claims{} // as package lease decodes it
		}
		c.after = after
		s.leases[name] = *after
	}
	s.at[version] = len(s.log)
	s.log = append(s.log, c)
	for _, watch := range s.watches {
		watch.changed()
	}
	if after == nil {
		return claim.Lease{}
	}
	return *after
}

func (s *server) get(name string) (claim.Lease, claim.Outcome) {
	if l, exists := s.leases[name]; exists {
		return l, claim.OK
	}
	return claim.Lease{}, claim.NotFound
}

func (s *server) create(name string, r claim.Record) (claim.Lease, claim.Outcome) {
	if _, exists := s.leases[name]; exists {
		return claim.Lease{}, claim.Exists
	}
	s.uids++
	l := claim.Lease{
		Name: name, UID: fmt.Sprintf("lease-%d", s.uids), Record: r,
		Created: time.Unix(1_700_000_000, 0).Add(s.w.now.Truncate(time.Second)).UTC(),
	}
	return s.commit(name, &l), claim.OK
}

// update returns a conflict also for a Lease that does not exist, since the update names a
// UID.
func (s *server) update(name, uid, version string, r claim.Record) (claim.Lease, claim.Outcome) {
	l, exists := s.leases[name]
	if !exists || l.UID != uid || l.Version != version {
		return claim.Lease{}, claim.Conflict
	}
	l.Record = r
	return s.commit(name, &l), claim.OK
}

func (s *server) delete(name, uid, version string) claim.Outcome {
	l, exists := s.leases[name]
	switch {
	case !exists:
		return claim.NotFound
	case l.UID != uid || l.Version != version:
		return claim.Conflict
	}
	s.commit(name, nil)
	return claim.OK
}

// evict voids a Lease; like update, it returns a conflict if there is none. Without a version
// it is unconditional, which only a member that breaks the protocol requests.
func (s *server) evict(name, uid, version, by string) (claim.Lease, claim.Outcome) {
	l, exists := s.leases[name]
	switch {
	case !exists || version != "" && (l.UID != uid || l.Version != version):
		return claim.Lease{}, claim.Conflict
	}
	s.foreign[l.Record.Holder] = true
	l.Record = claim.Record{Member: l.Record.Member, Phase: claim.PhaseDraining, Duration: l.Record.Duration, EvictedBy: by}
	return s.commit(name, &l), claim.OK
}

func (s *server) list() []claim.Lease { return inOrder(s.leases) }

func inOrder(leases map[string]claim.Lease) []claim.Lease {
	list := make([]claim.Lease, 0, len(leases))
	for _, name := range slices.Sorted(maps.Keys(leases)) {
		list = append(list, leases[name])
	}
	return list
}

// past returns the Leases as they were before the last writes from index on.
func (s *server) past(index int) map[string]claim.Lease {
	leases := maps.Clone(s.leases)
	for i := len(s.log) - 1; i >= index; i-- {
		if c := s.log[i]; c.before != nil {
			leases[c.name] = *c.before
		} else {
			delete(leases, c.name)
		}
	}
	return leases
}

// edit changes a Lease as a user with kubectl would. Its version increases.
func (s *server) edit(name string, change func(*claim.Record)) {
	if l, exists := s.leases[name]; exists {
		s.foreign[l.Record.Holder] = true
		change(&l.Record)
		s.commit(name, &l)
	}
}

// fall makes the server unreachable; all watches break.
func (s *server) fall(refuses bool) {
	s.down, s.refuses = true, refuses
	for _, watch := range s.watches {
		watch.disconnect()
	}
}

// rise makes the server reachable again. If restore is true, the database is restored from
// its backup first: revisions then continue from the lower one.
func (s *server) rise(restore bool) {
	s.down = false
	if restore && s.backup != nil {
		s.leases, s.revision, s.backup = s.backup, s.backedUp, nil
		s.restores++
		s.w.counts.Restores++
		s.log, s.at = nil, map[string]int{}
		clear(s.w.tokens)
		clear(s.w.objects)
		s.w.writes = nil
	}
	for _, watch := range s.watches {
		watch.connect()
	}
}

func (s *server) backUp() { s.backup, s.backedUp = maps.Clone(s.leases), s.revision }
