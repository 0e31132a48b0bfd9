// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// hostileEdits returns edits of every value on a Lease, as another client may make them.
func hostileEdits(l *coordinationv1.Lease) map[string]func(*coordinationv1.Lease) {
	edits := map[string]func(*coordinationv1.Lease){}
	values := map[string]func(string) string{
		"emptied":    func(string) string { return "" },
		"shortened":  func(v string) string { return v[:len(v)/2] },
		"lengthened": func(v string) string { return v + v },
		"changed":    func(v string) string { return strings.Map(func(r rune) rune { return r ^ 1 }, v) },
		"huge":       func(string) string { return strings.Repeat("9", 200<<10) },
		"not UTF-8":  func(v string) string { return v + "\xff\xfe" },
		"a number":   func(string) string { return "18446744073709551615" },
	}
	for key := range l.Annotations {
		edits[key+" removed"] = func(l *coordinationv1.Lease) { delete(l.Annotations, key) }
		for name, change := range values {
			edits[key+" "+name] = func(l *coordinationv1.Lease) { l.Annotations[key] = change(l.Annotations[key]) }
		}
	}
	for name, change := range values {
		edits["holder "+name] = func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new(change(*l.Spec.HolderIdentity)) }
	}
	edits["holder removed"] = func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }
	edits["duration removed"] = func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = nil }
	for _, seconds := range []int32{-1, 0, 1, 1<<31 - 1} {
		edits[fmt.Sprint("duration ", seconds)] = func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = &seconds }
	}
	edits["no annotations"] = func(l *coordinationv1.Lease) { l.Annotations = nil }
	edits["no record and no holder"] = func(l *coordinationv1.Lease) {
		l.Annotations, l.Spec = nil, coordinationv1.LeaseSpec{}
	}
	edits["no label"] = func(l *coordinationv1.Lease) { delete(l.Labels, inspect.LabelRing) }
	edits["full"] = func(l *coordinationv1.Lease) { l.Annotations["example.com/full"] = strings.Repeat("x", 250<<10) }
	return edits
}

// Whatever another client writes to the Lease of a working or of a crashed member: no two
// members work on a key, none panics, and each key is owned again in time. A working member
// restores its record.
func TestHostile_NoEditOfARecordMakesTwoMembersWork(t *testing.T) {
	heavy(t)
	type saved struct{ old, other coordinationv1.Lease }
	run := func(t *testing.T, crashed bool, edit func(*coordinationv1.Lease, saved)) {
		synctest.Test(t, func(t *testing.T) {
			cluster := shardtest.NewCluster()
			lease := func(name string) (found coordinationv1.Lease) {
				for _, l := range cluster.Leases(namespace) {
					if l.Name == name {
						found = *l.DeepCopy()
					}
				}
				return found
			}
			a, b, c := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b"), start(t, cluster.Client("c"), "c")
			time.Sleep(2 * time.Second)
			s := saved{old: lease("foo-c")}
			time.Sleep(8 * time.Second)
			oneOwnerEach(t, a, b, c)
			s.other = lease("foo-b")
			if crashed {
				cluster.Break("c", shardtest.Unreachable)
				time.Sleep(time.Second)
			}
			l := lease("foo-c")
			edit(&l, s)
			cluster.Put(&l)
			for end := time.Now().Add(25 * time.Second); time.Now().Before(end); {
				time.Sleep(250 * time.Millisecond)
				for key, who := range owners(a, b, c) {
					if len(who) > 1 {
						t.Fatalf("%q may work on %s", who, key)
					}
				}
			}
			if crashed {
				oneOwnerEach(t, a, b)
				_ = c.end()
				end(t, a, b)
				return
			}
			oneOwnerEach(t, a, b, c)
			l = lease("foo-c")
			if m, err := inspect.Decode(&l, "foo"); err != nil || m.Faults != nil || m.Holder != c.Identity() {
				t.Errorf("the record was not restored: %v, %+v", err, m)
			}
			end(t, a, b, c)
		})
	}
	var record coordinationv1.Lease
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(5 * time.Second)
		record = cluster.Leases(namespace)[0]
		broken := record.DeepCopy()
		broken.Annotations["operator-scaling.tom-ludwig.github.io/claims"] = ""
		broken.Name, broken.UID, broken.Spec.HolderIdentity = "foo-x", "x", new("x_1")
		cluster.Put(broken)
		time.Sleep(time.Second)
		if n := testutil.ToFloat64(collected{a.Collector(), "sharding_lease_faults_total", "malformed"}); n == 0 {
			t.Error("an edited record was not counted")
		}
		end(t, a)
	})
	edits := hostileEdits(&record)
	for _, name := range slices.Sorted(maps.Keys(edits)) {
		for _, crashed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/crashed=%v", name, crashed), func(t *testing.T) {
				run(t, crashed, func(l *coordinationv1.Lease, _ saved) { edits[name](l) })
			})
		}
	}
	for name, edit := range map[string]func(*coordinationv1.Lease, saved){
		"an old copy": func(l *coordinationv1.Lease, s saved) { l.Annotations, l.Spec = s.old.Annotations, s.old.Spec },
		"another member's copy": func(l *coordinationv1.Lease, s saved) {
			l.Annotations, l.Spec = s.other.Annotations, s.other.Spec
		},
		"another protocol": func(l *coordinationv1.Lease, _ saved) {
			l.Annotations["operator-scaling.tom-ludwig.github.io/protocol"] = "2"
			l.Annotations[inspect.AnnotationChecksum] = inspect.Checksum(l)
		},
	} {
		for _, crashed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/crashed=%v", name, crashed), func(t *testing.T) { run(t, crashed, edit) })
		}
	}
}
