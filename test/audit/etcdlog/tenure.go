// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package etcdlog

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// forever is the end of a tenure that has not ended.
const forever = math.MaxInt64

// Tenure is a time in which a held Lease claimed a point of the hash space without
// interruption. The revisions are From <= r < To.
type Tenure struct {
	Lease  string
	Holder string
	Member string // the holder's name on the ring
	From   int64
	To     int64 // a very high number if it has not ended
	// Versions are the revisions of the Lease in the tenure, From first.
	Versions []int64
	// FromSeen and ToSeen are not before the commits of the first claiming version
	// and of the one that ended the tenure; ToSent is not after the latter.
	FromSeen, ToSeen, ToSent time.Time
	// Grace is how long after ToSeen the holder may still act if its Lease was deleted while it was
	// held. The others wait for the duration of the Lease after its last version (R29, R43).
	Grace time.Duration
}

// Under reports whether a token belongs to the tenure. It need not be the first version: a
// member whose claim was committed but not confirmed claims again.
func (t Tenure) Under(token string) bool {
	revision, err := strconv.ParseInt(token, 10, 64)
	return err == nil && slices.Contains(t.Versions, revision)
}

// Open reports whether the tenure has not ended.
func (t Tenure) Open() bool { return t.To == forever }

// held is one version of a Lease with its claims.
type held struct {
	version LeaseVersion
	record  inspect.Member // has no holder if void, deleted or of another ring
}

// versions decodes the Leases of one ring.
func versions(log []LeaseVersion, ringName string) []held {
	all := make([]held, len(log))
	for i, v := range log {
		all[i].version = v
		if v.Object == nil {
			continue
		}
		if decoded, err := inspect.Decode(v.Object, ringName); err == nil {
			all[i].record = decoded
		}
	}
	return all
}

func claims(r inspect.Member, point uint64) bool {
	return !r.Void() && !r.Claims.Empty() && r.Claims.HasPoint(point)
}

// sent returns a time before which the version cannot have been committed: members write
// the time on the Lease before they send it. An evicted Lease has the time of its member's
// last renewal, a deleted one has none.
func sent(v LeaseVersion) time.Time {
	if v.Object == nil || v.Object.Spec.RenewTime == nil {
		return time.Time{}
	}
	return v.Object.Spec.RenewTime.Time
}

// tenures returns all tenures of a point, ordered by start.
func tenures(log []held, point uint64) []Tenure {
	var all []Tenure
	open := map[string]int{}         // by Lease: index into all
	expiry := map[string]time.Time{} // by Lease: that of its last version
	for _, h := range log {
		i, was := open[h.version.Name]
		is := claims(h.record, point)
		if was && (!is || h.record.Holder != all[i].Holder) {
			t := &all[i]
			t.To, t.ToSeen, t.ToSent = h.version.Revision, h.version.Seen, sent(h.version)
			if h.version.Object == nil {
				t.Grace = max(expiry[h.version.Name].Sub(t.ToSeen), 0)
			}
			delete(open, h.version.Name)
			was = false
		}
		expiry[h.version.Name] = h.version.Seen.Add(h.record.Duration)
		if is && was {
			all[i].Versions = append(all[i].Versions, h.version.Revision)
		}
		if is && !was {
			open[h.version.Name] = len(all)
			all = append(all, Tenure{
				Lease: h.version.Name, Holder: h.record.Holder, Member: h.record.Pod,
				From: h.version.Revision, To: forever, Versions: []int64{h.version.Revision}, FromSeen: h.version.Seen,
			})
		}
	}
	slices.SortStableFunc(all, func(a, b Tenure) int { return cmp.Compare(a.From, b.From) })
	return all
}

func pointOf(key string) uint64 {
	namespace, name, _ := strings.Cut(key, "/")
	return ring.PointOfName(namespace, name)
}

// Tenures returns all tenures of a key under a ring, ordered by start.
func (l *Log) Tenures(ringName, key string) []Tenure {
	return tenures(versions(l.Leases(), ringName), pointOf(key))
}
