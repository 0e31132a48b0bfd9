// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/etcdlog"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// handover is the move of a key from one member that worked on it to the next.
type handover struct {
	from, to etcdlog.Tenure
	worked   time.Time // when the next member first started to work on the key
}

// unowned is an upper bound of the time in which no member could work on the key: from before the
// previous member sent its release until the next one started to work. It is valid only for a
// release; an evicted member stopped at another time.
func (h handover) unowned() time.Duration { return h.worked.Sub(h.from.ToSent) }

// handovers returns all handovers of all keys.
func (w *harness) handovers() (all []handover) {
	starts := map[string][]worklog.Record{}
	for _, p := range w.histories() {
		for _, r := range p.Records {
			if r.Event == worklog.Start {
				starts[r.Key] = append(starts[r.Key], r)
			}
		}
	}
	offset := time.Duration(time.Now().UnixNano() - now()) // from the clock of records to the wall clock
	for key, records := range starts {
		all = append(all, handoversIn(w.log.Tenures(w.ring, key), records, offset)...)
	}
	return all
}

// handoversIn returns the handovers of one key. records are the starts of work on it.
func handoversIn(tenures []etcdlog.Tenure, records []worklog.Record, offset time.Duration) (all []handover) {
	var last *etcdlog.Tenure
	for _, t := range tenures {
		var worked time.Time // the first time
		for _, r := range records {
			at := time.Unix(0, r.Time).Add(offset)
			if t.Under(r.Token) && (worked.IsZero() || at.Before(worked)) {
				worked = at
			}
		}
		if worked.IsZero() {
			continue
		}
		if last != nil && last.Holder != t.Holder && !last.Open() {
			all = append(all, handover{*last, t, worked})
		}
		last = &t
	}
	return all
}

func TestHandovers(t *testing.T) {
	// a is the holder of three tenures: the last one is another claim of the same holder.
	tenure := func(holder string, version, released int64) etcdlog.Tenure {
		return etcdlog.Tenure{Holder: holder, Versions: []int64{version}, To: released, ToSent: time.Unix(released, 0)}
	}
	tenures := []etcdlog.Tenure{tenure("a_1", 1, 10), tenure("b_1", 12, 20), tenure("c_1", 13, 14), tenure("a_1", 21, 30), tenure("a_1", 31, 40)}
	var records []worklog.Record
	for _, start := range [][2]int64{{2, 1}, {3, 1}, {16, 12}, {15, 12}, {25, 21}, {35, 31}} {
		records = append(records, worklog.Record{Time: start[0] * int64(time.Second), Token: fmt.Sprint(start[1])})
	}
	var got []string
	for _, h := range handoversIn(tenures, records, 0) {
		got = append(got, fmt.Sprintf("%s>%s %v", h.from.Holder, h.to.Holder, h.unowned()))
	}
	if want := []string{"a_1>b_1 5s", "b_1>a_1 5s"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
