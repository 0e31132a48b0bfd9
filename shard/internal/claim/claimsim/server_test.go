// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"errors"
	"strconv"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/leaseserver"
)

// server is the API server with its database, for Leases only.
type server struct {
	*leaseserver.Store[claim.Record]
	w       *sim
	foreign map[string]bool // holders whose Lease another client has written
	written map[ownWrite]bool
	watches []*watch

	down    bool
	refuses bool    // while down, requests fail at once; otherwise they get no response
	storm   float64 // share of the requests that is answered with an error

	backup   *leaseserver.Backup[claim.Record]
	restores int
}

func newServer(w *sim) *server {
	s := &server{Store: leaseserver.NewStore[claim.Record](), w: w, foreign: map[string]bool{}, written: map[ownWrite]bool{}}
	s.Revision = 100
	s.Step = func() uint64 { return 1 + w.rand.Uint64N(40) } // other objects are written, too
	return s
}

// response converts the result of a request. Every write passes through it.
func (s *server) response(o leaseserver.Object[claim.Record], err error) (claim.Lease, claim.Outcome) {
	for _, watch := range s.watches {
		watch.catchUp()
	}
	switch {
	case errors.Is(err, leaseserver.ErrNotFound):
		return claim.Lease{}, claim.NotFound
	case errors.Is(err, leaseserver.ErrExists):
		return claim.Lease{}, claim.Exists
	case err != nil:
		return claim.Lease{}, claim.Conflict
	}
	return toLease(o), claim.OK
}

func toLease(o leaseserver.Object[claim.Record]) claim.Lease {
	return claim.Lease{Name: o.Name, UID: o.UID, Version: o.Version, Created: o.Created, Record: o.Value}
}

func toLeases(objects []leaseserver.Object[claim.Record]) []claim.Lease {
	leases := make([]claim.Lease, 0, len(objects))
	for _, o := range objects {
		if hasLabel(o.Value) {
			leases = append(leases, toLease(o))
		}
	}
	return leases
}

// stored is a record as package lease decodes it.
func stored(r claim.Record) claim.Record {
	if r.Void() {
		r.Claims = claim.Claims{}
	}
	return r
}

// lease returns a Lease; the zero value if there is none.
func (s *server) lease(name string) claim.Lease {
	o, _ := s.Get(name)
	return toLease(o)
}

func (s *server) list() []claim.Lease { return toLeases(s.List()) }

// withoutLabel is the fingerprint on a Lease that has lost its label: lists and watches do not
// show it.
const withoutLabel = "-"

func hasLabel(r claim.Record) bool { return r.Fingerprint != withoutLabel }

// ownWrite identifies a write of a member to its own Lease that was carried out.
type ownWrite struct {
	holder string
	seq    uint64
}

func (s *server) create(name string, r claim.Record) (claim.Lease, claim.Outcome) {
	s.written[ownWrite{r.Holder, r.Seq}] = true // if there is already one, the response is not OK
	return s.response(s.Create(name, time.Unix(1_700_000_000, 0).Add(s.w.now).UTC(), stored(r)))
}

func (s *server) update(name, uid, version string, r claim.Record) (claim.Lease, claim.Outcome) {
	o, err := s.Update(name, leaseserver.At(uid, version), stored(r))
	if err == nil {
		s.written[ownWrite{r.Holder, r.Seq}] = true
	}
	return s.response(o, err)
}

func (s *server) delete(name, uid, version string) claim.Outcome {
	_, outcome := s.response(leaseserver.Object[claim.Record]{}, s.Delete(name, leaseserver.At(uid, version)))
	return outcome
}

// evict voids a Lease. Without a version it is unconditional, which only a member that breaks
// the protocol requests.
func (s *server) evict(name, uid, version, by string) (claim.Lease, claim.Outcome) {
	was := s.lease(name).Record
	if version == "" {
		uid, version = s.lease(name).UID, s.lease(name).Version
	}
	l, outcome := s.update(name, uid, version, claim.Record{Member: was.Member, Phase: claim.PhaseDraining, Duration: was.Duration, EvictedBy: by})
	if outcome == claim.OK {
		s.foreign[was.Holder] = true
	}
	return l, outcome
}

// edit changes a Lease as a user with kubectl would.
func (s *server) edit(name string, change func(*claim.Record)) {
	if l := s.lease(name); l.Name != "" {
		s.foreign[l.Record.Holder] = true
		change(&l.Record)
		s.update(name, l.UID, l.Version, l.Record)
	}
}

// deleteByHand deletes a Lease as a user with kubectl would.
func (s *server) deleteByHand(name string) {
	l := s.lease(name)
	s.foreign[l.Record.Holder] = true
	s.delete(name, l.UID, l.Version)
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
		s.Restore(*s.backup)
		s.backup = nil
		s.restores++
		s.w.counts.Restores++
		clear(s.w.tokens)
		clear(s.w.objects)
		s.w.writes = nil
	}
	for _, watch := range s.watches {
		watch.connect()
	}
}

func (s *server) backUp() { s.backup = new(s.BackUp()) }

// revisionBefore returns the revision of a list that shows the writes before the one with a
// number.
func (s *server) revisionBefore(n int) uint64 {
	if n == s.End() {
		return s.Revision
	}
	next, _ := strconv.ParseUint(s.Change(n).Version, 10, 64)
	return next - 1
}
