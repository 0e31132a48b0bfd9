// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package etcdlog

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// A script is a history in lines of "<revision> <what>". A revision is a second.
//
//	10 a claims        the Lease of a claims the object (and half of all others)
//	10 a claims other  it claims everything except the object's partition
//	10 a void          it is void
//	10 a gone          it is deleted
//	10 a writes        a writes the Foo's status
//	10 a starts 8      a starts to work under the token 8
func parse(t *testing.T, script string) (leases []LeaseVersion, foos []FooVersion, processes []worklog.Process) {
	t.Helper()
	parameters := ring.DefaultParameters()
	place := ring.PartitionOf(ring.PointOfName("ns", "foo"), parameters.Partitions)
	records := map[string][]worklog.Record{}
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		revision, err := strconv.ParseInt(words[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		member, what := words[1], strings.Join(words[2:], " ")
		at := time.Unix(revision, 0)
		// Seen a moment after it was committed, sent a moment before.
		l := LeaseVersion{Revision: revision, Seen: at.Add(time.Millisecond), Name: "ring-" + member}
		claimed := ring.NewSet(parameters.Partitions)
		holder := member + "_1"
		switch {
		case what == "claims":
			for p := range parameters.Partitions / 2 {
				claimed.Add(p)
			}
			claimed.Add(place)
		case what == "claims other":
			claimed = ring.FullSet(parameters.Partitions)
			claimed.Remove(place)
		case what == "void":
			holder = ""
		case what == "gone":
			leases = append(leases, l)
			continue
		case what == "writes":
			foos = append(foos, FooVersion{Revision: revision, Seen: at, Name: "foo", Object: &v1alpha1.Foo{
				Status: v1alpha1.FooStatus{Member: member, ObservedGeneration: revision},
			}})
			continue
		case words[2] == "starts":
			records[member] = append(records[member], worklog.Record{
				Time: at.UnixNano(), Event: worklog.Start, Member: holder, Key: "ns/foo", Token: words[3],
			})
			continue
		default:
			t.Fatalf("unknown line %q", line)
		}
		phase := inspect.PhaseActive
		if holder == "" {
			phase, claimed = inspect.PhaseDraining, ring.NewSet(parameters.Partitions)
		}
		sent := metav1.NewMicroTime(at.Add(-time.Millisecond))
		l.Object = &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Name: l.Name, Labels: map[string]string{inspect.LabelRing: "ring"},
				Annotations: map[string]string{
					"operator-scaling.tom-ludwig.github.io/protocol":   "1",
					"operator-scaling.tom-ludwig.github.io/member":     member,
					"operator-scaling.tom-ludwig.github.io/phase":      phase,
					"operator-scaling.tom-ludwig.github.io/parameters": parameters.Fingerprint(),
					"operator-scaling.tom-ludwig.github.io/claims":     parameters.Fingerprint() + ":" + claimed.Encode(),
				},
			},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &sent, LeaseDurationSeconds: new(int32(15))},
		}
		l.Object.Annotations[inspect.AnnotationChecksum] = inspect.Checksum(l.Object)
		leases = append(leases, l)
	}
	for member, all := range records {
		processes = append(processes, worklog.Process{Name: member, Records: all})
	}
	slices.SortFunc(processes, func(a, b worklog.Process) int { return strings.Compare(a.Name, b.Name) })
	return leases, foos, processes
}

func TestCheckFinds(t *testing.T) {
	for name, test := range map[string]struct{ script, want string }{
		"nothing in a correct handover": {`
			1 a claims
			2 a starts 1
			3 a writes
			4 a claims other
			5 b claims
			6 b starts 5
			7 b writes`, ""},
		"nothing in a contested claim that waits": {`
			1 a claims
			2 a starts 1
			3 b claims
			4 a writes
			5 a void
			6 b starts 3
			7 b writes`, ""},
		"nothing in a member that joins again": {`
			1 a claims
			2 a writes
			3 a void
			4 b claims
			5 b writes
			6 b void
			7 a claims
			8 a starts 7
			9 a writes`, ""},
		"a write after the release": {`
			1 a claims
			2 a claims other
			3 a writes`, "H1"},
		"a write after the eviction": {`
			1 a claims
			2 a void
			3 a writes`, "H1"},
		"a write before the claim": {`
			1 a writes
			2 a claims`, "H1"},
		"nothing in work that continues for a while after the Lease was deleted by hand": {`
			1 a claims
			2 a gone
			3 a starts 1
			4 a writes`, ""},
		"a write long after the Lease was deleted": {`
			1 a claims
			2 a gone
			18 a writes`, "H1"},
		"work long after the Lease was deleted": {`
			1 a claims
			2 a gone
			18 a starts 1`, "H3"},
		"work too soon after another's Lease was deleted": {`
			1 a claims
			2 b claims
			3 a gone
			9 b starts 2`, "H5"},
		"nothing in work after a Lease that had expired was deleted": {`
			1 a claims
			20 b claims
			21 a gone
			22 b starts 20`, ""},
		"nothing in writes by two processes of one name, and another member between them": {`
			1 a claims
			2 a writes
			3 a gone
			4 b claims
			5 b writes
			6 b void
			7 a claims
			8 a writes`, ""},
		"nothing in work that waits until a deleted Lease has expired": {`
			1 a claims
			2 b claims
			3 a gone
			19 b starts 2`, ""},
		"nothing in work under an older claim than that of the deleted Lease": {`
			1 b claims
			2 a claims
			3 a gone
			9 b starts 1`, ""},
		"work without a token": {`
			1 a claims
			2 a starts 0`, "H3"},
		"a write after a void Lease was deleted": {`
			1 a claims
			2 a void
			3 a gone
			4 a writes`, "H1"},
		"interleaved writes under two held claims": {`
			1 a claims
			2 b claims
			3 a writes
			4 b writes
			5 a writes`, "H2"},
		"work under a token of another member": {`
			1 a claims
			2 b starts 1`, "H3"},
		"nothing in a claim that was repeated because it was not confirmed": {`
			1 a claims
			2 a claims
			3 a starts 2`, ""},
		"work under a revision of something else": {`
			1 a claims
			2 a writes
			3 a starts 2`, "H3"},
		"work after a list that came before the confirmed claim": {`
			1 a claims
			2 b claims
			3 a claims
			4 a starts 3
			5 b void`, "H4"},
		"work after the claim was withdrawn": {`
			1 a claims
			2 a claims other
			3 a starts 1`, "H3"},
		"work while another member claims": {`
			1 a claims
			2 b claims
			3 b starts 2`, "H4"},
		"work before another member has withdrawn": {`
			1 a claims
			2 b claims
			3 b starts 2
			4 a void`, "H4"},
		"work under a claim that was never alone": {`
			1 a claims
			2 b claims
			3 b starts 2
			4 b void
			5 a void`, "H4"},
		"work before the second of two has withdrawn": {`
			1 a claims
			2 c claims
			3 b claims
			4 a void
			5 b starts 3
			6 c void`, "H4"},
	} {
		t.Run(name, func(t *testing.T) {
			leases, foos, processes := parse(t, test.script)
			result := check(leases, foos, "ns", "ring", processes, 0)
			var kinds []string
			for _, f := range result.Findings {
				kinds = append(kinds, f.Kind[:2])
			}
			if got := strings.Join(slices.Compact(kinds), " "); got != test.want {
				t.Errorf("found %q, want %q: %v", got, test.want, result.Findings)
			}
			if (result.Err() == nil) != (test.want == "") {
				t.Errorf("the error is %v", result.Err())
			}
		})
	}
}

// A process may record after a pause what it started before the pause.
func TestCheckConsidersPauses(t *testing.T) {
	leases, foos, processes := parse(t, `
		1 a claims
		12 a void
		23 a starts 1`)
	second := int64(time.Second)
	processes[0].Pauses = []worklog.Pause{{From: 11 * second, To: 22 * second}}
	if err := check(leases, foos, "ns", "ring", processes, 0).Err(); err != nil {
		t.Error(err)
	}
	processes[0].Pauses = []worklog.Pause{{From: second / 4, To: second / 2}} // long ago
	if result := check(leases, foos, "ns", "ring", processes, 0); len(result.Findings) != 1 || result.Findings[0].Kind != Unclaimed {
		t.Errorf("found %v, want H3", result.Findings)
	}
}
