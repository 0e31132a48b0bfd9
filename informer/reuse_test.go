// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// The tests in this file fill the window until the tombstones of forgotten deletions are used
// again. No deletion may be lost or changed by that.

const smallLimit = 8 * int(blockSize)

// overflow deletes so many objects of a partition that all older deletions are forgotten and
// their tombstones are used again.
func (h *harness) overflow(prefix string, partition int) {
	for n := range 3 * smallLimit {
		h.f.OnDelete(object(fmt.Sprint(prefix, n), 1, partition))
	}
}

// While a replay, or the delivery of an object, calls the handler, another handler's stream
// sees so many deletions that those that are being delivered are forgotten.
func TestI4_DeletionsThatAreForgottenDuringTheirDelivery(t *testing.T) {
	want := []string{"delete unknown a(first)@1", "delete unknown a(second)@2", "add a(third)@3"}
	for name, deliver := range map[string]func(h *harness){
		"replay": func(h *harness) {
			h.put(object("a", 3, 0, "third"))
			h.i.Activated(h.set(ring.Active, 0))
			h.replay()
		},
		"replay, forgotten before it runs": func(h *harness) {
			h.put(object("a", 3, 0, "third"))
			h.i.Activated(h.set(ring.Active, 0))
			h.j.hook("")
			h.replay()
		},
		"stream": func(h *harness) {
			h.set(ring.Active, 0)
			h.created(object("a", 3, 0, "third"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, &owner{})
			h.i.deletions.limit = smallLimit
			fast := h.another()
			for n, uid := range []string{"first", "second"} {
				fast.f.OnDelete(object("a", n+1, 0, uid))
				h.f.OnDelete(object("a", n+1, 0, uid))
			}
			h.j.hook = func(string) {
				h.j.hook = nil
				fast.overflow("b", 1)
			}
			deliver(h)
			h.wants(want...)
		})
	}
}

// The same with two streams at the same time, for the race detector. A deletion may be forgotten
// before the activation, but none is delivered that is not this member's.
func TestI4_DeletionsThatAreForgottenConcurrently(t *testing.T) {
	h := newHarness(t, &owner{})
	h.i.deletions.limit = smallLimit
	fast := h.another()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				fast.overflow("b", 1)
			}
		}
	}()
	seen := 0
	for n := range 300 {
		h.f.OnDelete(object("a", n, 0, fmt.Sprint("first", n)))
		h.f.OnDelete(object("a", n, 0, fmt.Sprint("second", n)))
		set := h.set(ring.Active, 0)
		h.i.Activated(set)
		if n%2 == 0 {
			h.created(object("a", n, 0, fmt.Sprint("third", n)))
		}
		h.replay()
		h.drop(object("a", n, 0))
		h.i.Released(h.set(ring.NotOwned, 0))
		h.replay()
		for _, line := range h.j.take() {
			if strings.HasPrefix(line, "delete unknown a(") {
				seen++
			} else if !strings.HasPrefix(line, "add a(third") && !strings.HasPrefix(line, "released ") {
				t.Errorf("saw %q", line)
			}
		}
	}
	close(done)
	<-ended
	if seen == 0 {
		t.Error("no deletion was delivered")
	}
}

// What a handler has seen of deletions that are forgotten does not concern those whose
// tombstones take their places.
func TestI4_DeletionsAfterForgottenOnes(t *testing.T) {
	for name, first := range map[string]func(h *harness, obj *corev1.ConfigMap, n int){
		"delivered": func(h *harness, obj *corev1.ConfigMap, _ int) {
			h.f.OnDelete(obj)
		},
		"returned": func(h *harness, obj *corev1.ConfigMap, n int) {
			h.f.OnDelete(obj)
			h.i.deletions.at(uint64(n + 1)).returned = true
		},
		"without a final state": func(h *harness, obj *corev1.ConfigMap, _ int) {
			h.f.OnAdd(obj, false)
			h.f.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/" + obj.Name})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, &owner{})
			h.i.deletions.limit = smallLimit
			h.set(ring.Active, 0)
			for n := range smallLimit / 2 {
				first(h, object(fmt.Sprint("a", n), 1, 0), n)
			}
			h.j.take()
			h.overflow("b", 1)
			h.i.Activated(h.set(ring.Active, 1))
			h.replay()
			var want []string
			for n := range h.i.deletions.count() {
				want = append(want, fmt.Sprintf("delete unknown b%d@1", 3*smallLimit-h.i.deletions.count()+n))
			}
			h.wants(want...)
		})
	}
	t.Run("without a final state, instead of another", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.i.deletions.limit = smallLimit
		h.overflow("b", 1)
		set := h.set(ring.Active, 0)
		gone := object("a", 1, 0)
		h.created(gone)
		h.drop(gone)
		h.f.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/a"})
		h.wants("add a@1", "delete unknown ns/a")
		h.set(ring.NotOwned, 0)
		h.i.Released(set)
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.wants("delete unknown ns/a")
	})
	t.Run("the same again", func(t *testing.T) { // a handler whose stream lags far behind
		h := newHarness(t, &owner{})
		h.i.deletions.limit = smallLimit
		slow := h.another()
		h.f.OnDelete(object("a", 1, 0))
		h.overflow("b", 1)
		slow.f.OnDelete(object("a", 1, 0))
		slow.i.Activated(h.set(ring.Active, 0))
		slow.replay()
		slow.wants("delete unknown a@1")
	})
}

// remembered is what the model of the deletions knows of one.
type remembered struct {
	seq, point uint64
	name       string
	version    version
	returned   bool
}

func (r *remembered) String() string {
	return fmt.Sprintf("%d %d %s %s %s", r.seq, r.point, r.name, r.version.uid, r.version.version)
}

// lines formats tombstones as the model's deletions.
func lines(ts []*tombstone) (lines []string) {
	for _, t := range ts {
		lines = append(lines, (&remembered{t.seq, t.point, t.meta.Name, t.version(), t.returned}).String())
	}
	return lines
}

// TestI4_DeletionsModel compares the remembered deletions, under random operations, with a list
// of all deletions. All that was returned once must stay as it was.
func TestI4_DeletionsModel(t *testing.T) {
	places, recorded := map[*tombstone]bool{}, 0
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 4))
		h := newHarness(t, &owner{})
		ds := &h.i.deletions
		ds.limit = smallLimit
		var all []*remembered
		type held struct {
			ts    []*tombstone
			lines []string
		}
		var kept []held
		var snapshots []history
		now := time.Now()
		find := func(match func(*remembered) bool) (lines []string) {
			for _, d := range all {
				if match(d) && !d.returned {
					lines = append(lines, d.String())
				}
			}
			return lines
		}
		check := func(what string, got []*tombstone, want []string) {
			t.Helper()
			if diff := cmp.Diff(want, lines(got)); diff != "" {
				t.Fatalf("seed %d: %s (-want +got):\n%s", seed, what, diff)
			}
			if len(got) > 0 && r.IntN(2) == 0 {
				kept = append(kept, held{got, want})
			}
		}
		for range 10_000 {
			name, uid, p := fmt.Sprint("o", r.IntN(2000)), fmt.Sprint("u", r.IntN(2)), r.IntN(partitions)
			id := h.i.identifyKey("ns/" + name)
			switch n := r.IntN(1000); {
			case n < 985:
				obj := object(name, r.IntN(2), p, uid)
				var s located
				h.f.locateDeleted(&s, obj)
				live := all[ds.after:]
				at := slices.IndexFunc(live, func(d *remembered) bool {
					return d.name == name && d.version == versionOf(obj) && !d.returned
				})
				got := ds.remember(&s)
				if at < 0 {
					all = append(all, &remembered{uint64(len(all)) + 1, s.point, name, versionOf(obj), false})
					live, at = all, len(all)-1
					places[ds.at(ds.last)] = true
				}
				if want := (deletion{live[at].seq, live[at].point}); got != want {
					t.Fatalf("seed %d: recorded as %v, want %v", seed, got, want)
				}
			case n < 991:
				same, others := ds.of(id, object(name, 1, 0, uid).UID)
				of := func(same bool) []string {
					return find(func(d *remembered) bool {
						return d.seq > ds.after && d.name == name && (string(d.version.uid) == uid) == same
					})
				}
				check("others", others, of(false))
				check("same", same, of(true))
				if r.IntN(2) == 0 {
					ds.back(same...)
					for _, t := range same {
						all[t.seq-1].returned = true
					}
				}
			case n == 991 && r.IntN(4) == 0:
				snapshots = append(snapshots, ds.snapshot())
			case n == 992 && len(snapshots) > 0:
				s := snapshots[r.IntN(len(snapshots))]
				set := ring.NewSet(partitions)
				set.Add(p)
				check("in", ds.in(set, s), find(func(d *remembered) bool {
					return (d.seq > ds.after || d.seq > s.after && d.seq <= s.last) && set.HasPoint(d.point)
				}))
			case n < 995:
				snapshots, kept = nil, nil
			case n < 998:
				now = now.Add(ds.window / generations / 2)
				ds.expire(now)
			}
			for _, k := range kept {
				if got := lines(k.ts); !slices.Equal(got, k.lines) {
					t.Fatalf("seed %d: changed from\n%s\nto\n%s", seed, strings.Join(k.lines, "\n"), strings.Join(got, "\n"))
				}
			}
			if len(ds.latest) > ds.count() || len(ds.live) > generations+2 {
				t.Fatalf("seed %d: %d objects, %d deletions, %d generations", seed, len(ds.latest), ds.count(), len(ds.live))
			}
		}
		recorded += len(all)
	}
	if len(places) > recorded/2 {
		t.Errorf("%d deletions had %d places: too few were used again", recorded, len(places))
	}
}
