// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/watch"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(cluster *shardtest.Cluster, member string) lease.Config {
	return lease.Config{
		Leases: cluster.Client(member).CoordinationV1().Leases("default"),
		Ring:   "foo", Name: lease.Name("foo-", member), Holder: member + "_1", Acquired: time.Now(),
	}
}

func record(member string) claim.Record {
	p := ring.DefaultParameters()
	claims := claim.Claims{Parameters: p, Set: ring.NewSet(p.Partitions)}
	claims.Set.Add(7)
	return claim.Record{
		Member: member, Holder: member + "_1", PodUID: "uid", Duration: 15 * time.Second, Phase: claim.PhaseActive, Seq: 3,
		Fingerprint: p.Fingerprint(), Parameters: p, Claims: claims,
		Tombstones: []claim.Tombstone{{UID: "lease-z", Holder: "z_1", Seq: 7, Claims: claim.Claims{Everything: true}, Duration: 15 * time.Second, Remaining: 4*time.Second + time.Millisecond}},
		Watermarks: claim.Watermarks{"Foo.example.com": "1000", "v1.Deployment": "999"},
	}
}

// patience is longer than a list takes in these tests, unless it gets no response.
const patience = 6 * time.Second

var compareSets = cmp.Comparer(func(a, b ring.Set) bool { return a.Equal(b) })

func TestRecordsRoundTrip(t *testing.T) {
	ctx := context.Background()
	client := lease.NewClient(config(shardtest.NewCluster(), "a"))
	want := record("a")
	created, outcome, err := client.Create(ctx, want)
	if outcome != claim.OK {
		t.Fatal(err)
	}
	want.Seq, want.Phase = 4, claim.PhaseDraining
	updated, outcome, err := client.Update(ctx, created.UID, created.Version, want)
	if outcome != claim.OK {
		t.Fatal(err)
	}
	got, outcome, err := client.Get(ctx)
	if outcome != claim.OK || err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Record, compareSets); diff != "" {
		t.Errorf("the record differs after a round trip (-want +got):\n%s", diff)
	}
	if got.Version != updated.Version || got.UID != created.UID {
		t.Errorf("got version %s, uid %s", got.Version, got.UID)
	}
}

func TestL1_OutcomesSayOnlyWhatIsCertain(t *testing.T) {
	ctx := context.Background()
	cluster := shardtest.NewCluster()
	client := lease.NewClient(config(cluster, "a"))
	want := func(what string, got, want claim.Outcome) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	_, outcome, _ := client.Get(ctx)
	want("read of a missing Lease", outcome, claim.NotFound)
	created, outcome, _ := client.Create(ctx, record("a"))
	want("create", outcome, claim.OK)
	_, outcome, _ = client.Create(ctx, record("a"))
	want("create again", outcome, claim.Exists)
	_, outcome, _ = client.Update(ctx, created.UID, "1", record("a"))
	want("update of an old version", outcome, claim.Conflict)
	_, outcome, _ = client.Evict(ctx, claim.EvictLease{Name: "foo-a", UID: created.UID, Version: "1"})
	want("eviction of an old version", outcome, claim.Conflict)
	outcome, _ = client.Delete(ctx, "foo-a", "another", created.Version)
	want("deletion of another Lease", outcome, claim.Conflict)
	cluster.Break("a", shardtest.LostAnswer)
	_, outcome, _ = client.Update(ctx, created.UID, created.Version, record("a"))
	want("update without a response", outcome, claim.Unknown)
	cluster.Break("a", shardtest.None)
	cluster.Remove("default", "foo-a")
	_, outcome, _ = client.Update(ctx, created.UID, created.Version, record("a"))
	want("update of a deleted Lease", outcome, claim.Conflict)
}

// failingLeases is an API in which each update fails.
type failingLeases struct {
	coordinationclient.LeaseInterface
	err error
}

func (f failingLeases) Update(context.Context, *coordinationv1.Lease, metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return nil, f.err
}

// Refused means that the server has not carried out the request, and will not.
func TestL1_OnlyWhatIsCertainlyNotCarriedOutIsRefused(t *testing.T) {
	resource, kind := schema.GroupResource{Resource: "leases"}, schema.GroupKind{Kind: "Lease"}
	refused := func(op string, cause error) error {
		return &url.Error{Op: "Put", URL: "https://x", Err: &net.OpError{Op: op, Net: "tcp", Err: cause}}
	}
	for _, c := range []struct {
		err   error
		want  claim.Outcome
		after time.Duration
	}{
		{apierrors.NewTooManyRequests("busy", 7), claim.Refused, 7 * time.Second},
		{apierrors.NewForbidden(resource, "x", errors.New("no")), claim.Refused, 0},
		{apierrors.NewUnauthorized("no"), claim.Refused, 0},
		{apierrors.NewBadRequest("no"), claim.Refused, 0},
		{apierrors.NewInvalid(kind, "x", nil), claim.Refused, 0},
		{apierrors.NewRequestEntityTooLargeError("no"), claim.Refused, 0},
		{refused("dial", syscall.ECONNREFUSED), claim.Refused, 0},
		{refused("dial", &net.DNSError{IsNotFound: true}), claim.Refused, 0},

		{refused("read", syscall.ECONNRESET), claim.Unknown, 0},
		{refused("write", syscall.EPIPE), claim.Unknown, 0}, // a part may have arrived
		{syscall.ECONNREFUSED, claim.Unknown, 0},            // of what?
		{apierrors.NewInternalError(errors.New("no")), claim.Unknown, 0},
		{apierrors.NewServiceUnavailable("no"), claim.Unknown, 0},
		{apierrors.NewTimeoutError("no", 3), claim.Unknown, 3 * time.Second},
		{apierrors.NewServerTimeout(resource, "update", 2), claim.Unknown, 2 * time.Second},
		{context.DeadlineExceeded, claim.Unknown, 0},
		{context.Canceled, claim.Unknown, 0},
		{lease.ErrNoReturn, claim.Unknown, 0},
		{io.ErrUnexpectedEOF, claim.Unknown, 0},
		{apierrors.NewConflict(resource, "x", errors.New("no")), claim.Conflict, 0},
	} {
		cfg := config(shardtest.NewCluster(), "a")
		cfg.Leases = failingLeases{cfg.Leases, c.err}
		_, outcome, err := lease.NewClient(cfg).Update(context.Background(), "uid", "1", record("a"))
		if after := lease.RetryAfter(err); outcome != c.want || after != c.after {
			t.Errorf("%v: %v, wait %v; want %v, %v", c.err, outcome, after, c.want, c.after)
		}
	}
}

func TestEvictionVoids(t *testing.T) {
	ctx := context.Background()
	cluster := shardtest.NewCluster()
	a, b := lease.NewClient(config(cluster, "a")), lease.NewClient(config(cluster, "b"))
	created, _, err := a.Create(ctx, record("a"))
	if err != nil {
		t.Fatal(err)
	}
	void, outcome, err := b.Evict(ctx, claim.EvictLease{Name: "foo-a", UID: created.UID, Version: created.Version, Member: "a"})
	if outcome != claim.OK || !void.Record.Void() || !void.Record.Claims.Empty() || void.Record.EvictedBy != "b_1" {
		t.Fatalf("%v %v: %+v", outcome, err, void)
	}
	if _, outcome, _ := a.Update(ctx, created.UID, created.Version, record("a")); outcome != claim.Conflict {
		t.Errorf("a renewal after the eviction: %v", outcome)
	}
}

// signed sets the checksum as if a member had written the Lease.
func signed(l *coordinationv1.Lease) *coordinationv1.Lease {
	l.Annotations[lease.AnnotationChecksum] = lease.Checksum(l)
	return l
}

func TestL3L4_UnreadableValuesAreTreatedAsTheWorstCase(t *testing.T) {
	holder, zero := "x_1", int32(0)
	ours := func(annotations ...string) *coordinationv1.Lease {
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Name: "foo-x", Labels: map[string]string{lease.LabelRing: "foo"}, Annotations: map[string]string{"operator-scaling.tom-ludwig.github.io/protocol": "1"},
		}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}}
		for i := 0; i < len(annotations); i += 2 {
			l.Annotations["operator-scaling.tom-ludwig.github.io/"+annotations[i]] = annotations[i+1]
		}
		return signed(l)
	}
	foreign := ours()
	foreign.Labels = nil
	if _, _, err := lease.Decode(foreign, "foo"); !errors.Is(err, lease.ErrForeign) {
		t.Errorf("no label: %v", err)
	}
	bare := ours()
	bare.Annotations = nil
	if l, _, err := lease.Decode(bare, "foo"); err != nil || !l.Record.Edited {
		t.Errorf("the Lease of a member without a record: %v, %+v", err, l)
	}
	bare.Name = "election"
	if _, _, err := lease.Decode(bare, "foo"); !errors.Is(err, lease.ErrForeign) {
		t.Errorf("no record: %v", err)
	}
	for name, l := range map[string]*coordinationv1.Lease{
		"no claims":           ours(),
		"garbage claims":      ours("claims", "garbage"),
		"truncated claims":    ours("claims", ring.DefaultParameters().Fingerprint()+":AAAA"),
		"another protocol":    ours("protocol", "2", "claims", ring.DefaultParameters().Fingerprint()+":"+ring.NewSet(509).Encode()),
		"another placement":   ours("claims", "xxh3/name/509/20/1.25/consistent-v9:"+ring.NewSet(509).Encode()),
		"too many partitions": ours("claims", "xxh3/name/999999999/20/1.25/consistent-v1.1.0:AA"),
	} {
		decoded, faults, err := lease.Decode(l, "foo")
		if err != nil || faults == nil || !decoded.Record.Claims.Everything || decoded.Record.Phase == claim.PhaseActive {
			t.Errorf("%s: %v %v %+v", name, err, faults, decoded.Record)
		}
	}
	// A missing duration is not a short one (R46).
	noDuration := ours("member", "x", "phase", "active")
	noDuration.Spec.LeaseDurationSeconds = &zero
	if decoded, _, _ := lease.Decode(signed(noDuration), "foo"); decoded.Record.Duration != 0 || decoded.Record.Edited {
		t.Errorf("no duration: %+v", decoded.Record)
	}
	if tooLong := ours("member", "x", "phase", "active"); true {
		tooLong.Spec.LeaseDurationSeconds = new(int32(math.MaxInt32))
		if decoded, _, _ := lease.Decode(signed(tooLong), "foo"); decoded.Record.Duration != claim.MaxLeaseDuration {
			t.Errorf("2^31-1 seconds: %v", decoded.Record.Duration)
		}
	}
	void := ours("claims", "garbage", "evicted-by", "b_1")
	void.Spec.HolderIdentity = nil
	if decoded, _, err := lease.Decode(signed(void), "foo"); err != nil || !decoded.Record.Void() || !decoded.Record.Claims.Empty() {
		t.Errorf("no holder: %v %+v", err, decoded.Record)
	}
}

// Watermarks delay the members that read them. Unreadable watermarks delay no member.
func TestUnreadableWatermarksAreIgnored(t *testing.T) {
	l := func(holder, written string) *coordinationv1.Lease {
		phase := "active"
		if holder == "" {
			phase = "draining"
		}
		p := ring.DefaultParameters()
		return signed(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{lease.LabelRing: "foo"},
			Annotations: map[string]string{
				"operator-scaling.tom-ludwig.github.io/protocol": "1", "operator-scaling.tom-ludwig.github.io/watermarks": written,
				"operator-scaling.tom-ludwig.github.io/member": "x", "operator-scaling.tom-ludwig.github.io/phase": phase, "operator-scaling.tom-ludwig.github.io/seq": "1",
				"operator-scaling.tom-ludwig.github.io/claims": p.Fingerprint() + ":" + ring.NewSet(p.Partitions).Encode(), "operator-scaling.tom-ludwig.github.io/parameters": p.Fingerprint(),
			},
		}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}})
	}
	many := strings.TrimSuffix(strings.Repeat("Foo=1,", 5000), ",")
	var kinds []string
	for i := range 17 {
		kinds = append(kinds, fmt.Sprintf("Kind%d=1", i))
	}
	for _, written := range []string{"garbage", "Foo=", "=1", "Foo=01", "Foo=0", "Foo=-1", "Foo=1,", "Foo=1,,Bar=2", "Foo=1.5", strings.Repeat("F", 101) + "=1", "F o=1", "Foo=" + strings.Repeat("9", 41), many, strings.Join(kinds, ",")} {
		for _, holder := range []string{"x_1", ""} { // watermarks on a void Lease count, too
			decoded, faults, err := lease.Decode(l(holder, written), "foo")
			if err != nil || faults == nil || !strings.Contains(faults.Error(), "watermarks") || decoded.Record.Watermarks != nil {
				t.Errorf("%.40q: %v %v %v", written, err, faults, decoded.Record.Watermarks)
			}
		}
	}
	decoded, faults, err := lease.Decode(l("", "Foo=1,Bar="+strings.Repeat("9", 40)), "foo")
	if err != nil || faults != nil || decoded.Record.Watermarks["Foo"] != "1" || len(decoded.Record.Watermarks) != 2 {
		t.Errorf("%v %v %v", err, faults, decoded.Record.Watermarks)
	}
	if decoded, _, _ := lease.Decode(l("x_1", ""), "foo"); decoded.Record.Watermarks != nil {
		t.Errorf("a member of an earlier version publishes %v", decoded.Record.Watermarks)
	}
}

func TestWatermarksAreBounded(t *testing.T) {
	ctx := context.Background()
	client := lease.NewClient(config(shardtest.NewCluster(), "a"))
	r := record("a")
	r.Watermarks = claim.Watermarks{"no kind": "1", "Bad": "x", "": "1"}
	for i := range 100 {
		r.Watermarks[fmt.Sprintf("Kind%02d", i)] = strings.Repeat("9", 20)
	}
	if _, outcome, err := client.Create(ctx, r); outcome != claim.OK {
		t.Fatal(err)
	}
	got, _, err := client.Get(ctx)
	if err != nil || len(got.Record.Watermarks) != 16 || got.Record.Watermarks["Kind00"] == "" || got.Record.Watermarks["Kind15"] == "" {
		t.Errorf("%v %v", err, got.Record.Watermarks)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("1", "x", "active", "xxh3/name/509/20/1.25/consistent-v1.1.0:AA", "1", "[]", int32(15), "Foo=12,Bar=3")
	f.Add("2", "", "", "everything", "-1", `[{"holder":"y","claims":"z"}]`, int32(-1), "=,")
	f.Fuzz(func(t *testing.T, protocol, holder, phase, claims, seq, tombstones string, seconds int32, written string) {
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{lease.LabelRing: "foo"},
			Annotations: map[string]string{
				"operator-scaling.tom-ludwig.github.io/protocol": protocol, "operator-scaling.tom-ludwig.github.io/phase": phase, "operator-scaling.tom-ludwig.github.io/claims": claims,
				"operator-scaling.tom-ludwig.github.io/seq": seq, "operator-scaling.tom-ludwig.github.io/tombstones": tombstones, "operator-scaling.tom-ludwig.github.io/parameters": claims,
				"operator-scaling.tom-ludwig.github.io/watermarks": written,
			},
		}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds}}
		for range 2 { // edited, and as if a member had written it
			decoded, _, err := lease.Decode(l, "foo")
			if err != nil {
				t.Fatalf("a Lease of the ring was rejected: %v", err)
			}
			r := decoded.Record
			if r.Duration < 0 || r.Duration > claim.MaxLeaseDuration || r.Void() && !r.Claims.Empty() || r.Edited && !r.Claims.Everything || len(r.Watermarks) > 16 {
				t.Errorf("%+v", r)
			}
			if len(r.Member) > 253 || len(r.Holder) > 300 || !utf8.ValidString(r.Member+r.Holder+r.PodUID+r.EvictedBy) {
				t.Errorf("member %q, holder %q", r.Member, r.Holder)
			}
			signed(l)
		}
	})
}

func TestName_FitsAndDistinguishesPods(t *testing.T) {
	long := strings.Repeat("x", 250)
	names := map[string]bool{}
	for _, pod := range []string{"a", "b", long + "-a", long + "-b", strings.Repeat("y.", 126) + "z"} {
		name := lease.Name("foo-operator-", pod)
		if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
		if names[name] {
			t.Errorf("two Pods share the name %s", name)
		}
		names[name] = true
	}
}

// Another client has removed the record of a Lease whose name is shortened: the name does not
// contain the Pod's, but only members have such names (R50).
func TestR50_AShortenedNameIsAMembers(t *testing.T) {
	for name, foreign := range map[string]bool{
		lease.Name("operator-", strings.Repeat("pod.", 62)+"pod"):         false,
		lease.Name(strings.Repeat("a", 234)+"--", "pod-0123456789-01234"): false,
		strings.Repeat("a", 253): true,
		"foo-0123456789abcdef":   true,
	} {
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{lease.LabelRing: "foo"}}}
		decoded, _, err := lease.Decode(l, "foo")
		if errors.Is(err, lease.ErrForeign) != foreign {
			t.Errorf("%s: %v", name, err)
		}
		if !decoded.Record.Edited || !decoded.Record.Claims.Everything {
			t.Errorf("%s: %+v", name, decoded.Record)
		}
	}
}

// A dead connection returns no error: Relist makes the watch show the current state.
func TestWatch_RelistShowsWhatADeadStreamMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		c := config(cluster, "a")
		other := lease.NewClient(config(cluster, "b"))
		created, _, err := other.Create(t.Context(), record("b"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		w := lease.NewWatch(c, patience)
		events := make(chan claim.Event, 100)
		done := make(chan error, 1)
		go func() {
			done <- w.Run(ctx, func(e claim.Event) { events <- e }, func(string, error) {})
		}()
		synctest.Wait()
		if e, ok := (<-events).(claim.LeaseObserved); !ok || e.Lease.Version != created.Version || !e.Listed {
			t.Errorf("the watch began with %+v", e)
		}
		if e, ok := (<-events).(claim.WatchProgress); !ok || !e.Listed || e.Version == "" {
			t.Errorf("the first list ends with %+v", e)
		}
		// The stream goes dead: no event, no error. (Break with None would end the stream.)
		cluster.Break("a", shardtest.Unreachable)
		updated, _, err := other.Update(t.Context(), created.UID, created.Version, record("b"))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(events) != 0 {
			t.Fatal("an event came through a dead stream")
		}
		cluster.ClearFault("a")
		time.Sleep(time.Minute)
		if len(events) != 0 {
			t.Fatal("the dead stream recovered by itself")
		}
		w.Relist()
		time.Sleep(5 * time.Second)
		if e, ok := (<-events).(claim.LeaseObserved); !ok || e.Lease.Version != updated.Version {
			t.Errorf("after a relist the watch shows %+v", e)
		}
		<-events // the end of the list
		// The Lease is deleted and created again while the stream is dead: the watch shows
		// its end, but not its final state.
		cluster.Break("a", shardtest.Unreachable)
		cluster.Remove("default", updated.Name)
		again, _, err := other.Create(t.Context(), record("b"))
		if err != nil {
			t.Fatal(err)
		}
		cluster.ClearFault("a")
		w.Relist()
		time.Sleep(5 * time.Second)
		if e, ok := (<-events).(claim.LeaseDeleted); !ok || e.Last.UID != updated.UID || e.Final {
			t.Errorf("instead of a deletion the watch shows %+v", e)
		}
		if e, ok := (<-events).(claim.LeaseObserved); !ok || e.Lease.UID != again.UID {
			t.Errorf("after it the watch shows %+v", e)
		}
		<-events // the end of the list
		// The Lease is deleted and created again while the stream works.
		cluster.Remove("default", updated.Name)
		if _, _, err = other.Create(t.Context(), record("b")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if e, ok := (<-events).(claim.LeaseDeleted); !ok || e.Last.UID != again.UID || !e.Final {
			t.Errorf("the watch shows the deletion as %+v", e)
		}
		for e := range events {
			if _, ok := e.(claim.LeaseObserved); ok {
				break // else the version of the deletion
			}
		}
		// Another client removes the record: the Lease was a member's, and still blocks (R32, R50).
		stripped := cluster.Leases("default")[0]
		stripped.Annotations = nil
		cluster.Put(&stripped)
		synctest.Wait()
		if e, ok := (<-events).(claim.LeaseObserved); !ok || e.Lease.Record.Holder != "b_1" || !e.Lease.Record.Edited || !e.Lease.Record.Claims.Everything {
			t.Errorf("a Lease without its record: %+v", e)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The longer an outage, the longer client-go's informers wait before they retry: up to a
// minute. By then a member would have given up on its watch.
func TestWatch_RecoversSoonAfterALongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		w := lease.NewWatch(config(cluster, "a"), patience)
		ctx, cancel := context.WithCancel(context.Background())
		events := make(chan claim.Event, 100)
		done := make(chan error, 1)
		var failures atomic.Int64
		go func() {
			done <- w.Run(ctx, func(e claim.Event) { events <- e }, func(_ string, err error) {
				if err != nil {
					failures.Add(1)
				}
			})
		}()
		synctest.Wait()
		<-events // the end of the first list
		cluster.Break("a", shardtest.Unreachable)
		w.Relist() // the stream ends, and no new stream can be opened
		time.Sleep(5 * time.Minute)
		if n := failures.Load(); n < 100 {
			t.Errorf("tried %d times in five minutes", n)
		}
		if _, _, err := lease.NewClient(config(cluster, "b")).Create(t.Context(), record("b")); err != nil {
			t.Fatal(err)
		}
		cluster.ClearFault("a")
		time.Sleep(2 * time.Second)
		select {
		case e := <-events:
			if o, ok := e.(claim.LeaseObserved); !ok || o.Lease.Record.Holder != "b_1" {
				t.Errorf("after the outage the watch shows %+v", e)
			}
		default:
			t.Error("the watch shows nothing two seconds after the outage")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A list or watch that gets no response is sent again.
func TestWatch_RelistWhileARequestHasNoResponse(t *testing.T) {
	for _, verb := range []string{"list", "watch"} {
		t.Run(verb, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				c := config(cluster, "a")
				c.Leases = &silentOnce{LeaseInterface: c.Leases, verb: verb}
				w := lease.NewWatch(c, patience)
				ctx, cancel := context.WithCancel(context.Background())
				events, done := make(chan claim.Event, 100), make(chan error, 1)
				go func() {
					done <- w.Run(ctx, func(e claim.Event) {
						if _, observed := e.(claim.LeaseObserved); observed {
							events <- e
						}
					}, func(string, error) {})
				}()
				time.Sleep(time.Minute)
				if _, _, err := lease.NewClient(config(cluster, "b")).Create(t.Context(), record("b")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if len(events) > 0 {
					t.Fatal("the watch shows a Lease although its request has no response")
				}
				w.Relist()
				time.Sleep(2 * time.Second)
				if len(events) != 1 {
					t.Errorf("%d events after Relist, want 1", len(events))
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A list that the server needs long for is not restarted again and again: it would never be
// finished.
func TestWatch_RelistLeavesAListAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		if _, _, err := lease.NewClient(config(cluster, "b")).Create(t.Context(), record("b")); err != nil {
			t.Fatal(err)
		}
		c := config(cluster, "a")
		c.Leases = slowLists{c.Leases, patience + time.Second}
		w := lease.NewWatch(c, patience)
		ctx, cancel := context.WithCancel(context.Background())
		var observed atomic.Int64
		done := make(chan error, 1)
		go func() {
			done <- w.Run(ctx, func(e claim.Event) {
				if _, ok := e.(claim.LeaseObserved); ok {
					observed.Add(1)
				}
			}, func(string, error) {})
		}()
		for range 3 {
			time.Sleep(patience - time.Second)
			w.Relist()
		}
		if n := observed.Load(); n == 0 {
			t.Error("the list was not finished although the server has responded")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// slowLists are Leases whose lists take a while.
type slowLists struct {
	coordinationclient.LeaseInterface
	takes time.Duration
}

func (s slowLists) List(ctx context.Context, o metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	select {
	case <-time.After(s.takes):
		return s.LeaseInterface.List(ctx, o)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// silentOnce are Leases with one request of a verb that gets no response.
type silentOnce struct {
	coordinationclient.LeaseInterface
	verb string
	once sync.Once
}

func (s *silentOnce) wait(ctx context.Context, verb string) (err error) {
	if verb == s.verb {
		s.once.Do(func() {
			<-ctx.Done()
			err = ctx.Err()
		})
	}
	return err
}

func (s *silentOnce) List(ctx context.Context, o metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	if err := s.wait(ctx, "list"); err != nil {
		return nil, err
	}
	return s.LeaseInterface.List(ctx, o)
}

func (s *silentOnce) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	if err := s.wait(ctx, "watch"); err != nil {
		return nil, err
	}
	return s.LeaseInterface.Watch(ctx, o)
}

// The server answers lists, and refuses watches. Relist sends a list (R34), although at that moment
// no request is under way: the watch waits before it sends the next one.
func TestWatch_RelistListsWhileWatchRequestsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		c := config(cluster, "a")
		c.Leases = noWatches{c.Leases}
		w := lease.NewWatch(c, patience)
		ctx, cancel := context.WithCancel(context.Background())
		var observed atomic.Int64
		done := make(chan error, 1)
		go func() {
			done <- w.Run(ctx, func(e claim.Event) {
				if _, ok := e.(claim.LeaseObserved); ok {
					observed.Add(1)
				}
			}, func(string, error) {})
		}()
		time.Sleep(time.Minute)
		if _, _, err := lease.NewClient(config(cluster, "b")).Create(t.Context(), record("b")); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			w.Relist()
			time.Sleep(patience)
		}
		if observed.Load() == 0 {
			t.Error("no list followed four calls of Relist")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// noWatches are Leases whose watch requests fail at once.
type noWatches struct {
	coordinationclient.LeaseInterface
}

func (noWatches) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return nil, errors.New("the server is unable to watch")
}

// The response to a watch request arrives at the moment in which Relist cancels the request.
func TestWatch_RelistAtTheMomentOfAResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		c := config(cluster, "a")
		leases := &lateStream{LeaseInterface: c.Leases}
		c.Leases = leases
		w := lease.NewWatch(c, patience)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx, func(claim.Event) {}, func(string, error) {}) }()
		time.Sleep(time.Minute)
		w.Relist()
		time.Sleep(2 * time.Second)
		if n := leases.lists.Load(); n != 2 {
			t.Errorf("%d lists, want the first one and one after Relist", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// lateStream are Leases whose first watch request is answered when it is cancelled: with a stream
// that ends at once.
type lateStream struct {
	coordinationclient.LeaseInterface
	lists atomic.Int64
	once  sync.Once
}

func (l *lateStream) List(ctx context.Context, o metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	l.lists.Add(1)
	return l.LeaseInterface.List(ctx, o)
}

func (l *lateStream) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	var late watch.Interface
	l.once.Do(func() {
		<-ctx.Done()
		late = watch.NewEmptyWatch()
	})
	if late != nil {
		return late, nil
	}
	return l.LeaseInterface.Watch(ctx, o)
}

// Run leaves no goroutine behind, also if a stream is slow to end.
func TestWatch_RunWaitsForItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		c := config(cluster, "a")
		slow := slowLeases{LeaseInterface: c.Leases, hold: make(chan struct{})}
		c.Leases = slow
		w := lease.NewWatch(c, patience)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx, func(claim.Event) {}, func(string, error) {}) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		select {
		case <-done:
			t.Error("Run has returned before the goroutine of its stream")
		default:
		}
		close(slow.hold)
		synctest.Wait()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Fatal("Run has not returned although its stream has ended")
		}
	})
}

// slowLeases are Leases whose watch is read no sooner than hold is closed.
type slowLeases struct {
	coordinationclient.LeaseInterface
	hold chan struct{}
}

func (l slowLeases) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	w, err := l.LeaseInterface.Watch(ctx, o)
	return slowStream{w, l.hold}, err
}

type slowStream struct {
	watch.Interface
	hold chan struct{}
}

func (s slowStream) ResultChan() <-chan watch.Event {
	<-s.hold
	return s.Interface.ResultChan()
}

func ExampleName() {
	fmt.Println(lease.Name("foo-operator-", "foo-operator-6d9f8-x2x4z"))
	// Output: foo-operator-foo-operator-6d9f8-x2x4z
}

// An eviction leaves a void Lease with a minimal record: it must be possible to evict the
// holder of a Lease that is as large as the API server allows.
func TestEvictionIsOneRequestThatLeavesAMinimalRecord(t *testing.T) {
	ctx := context.Background()
	cluster := shardtest.NewCluster()
	a := lease.NewClient(config(cluster, "a"))
	clientset := cluster.Client("b")
	c := config(cluster, "b")
	c.Leases = clientset.CoordinationV1().Leases("default")
	b := lease.NewClient(c)
	r := record("a")
	r.PodUID = "uid-a"
	if _, _, err := a.Create(ctx, r); err != nil {
		t.Fatal(err)
	}
	full := cluster.Leases("default")[0]
	full.Annotations["example.com/full"] = strings.Repeat("x", 250<<10)
	full.Finalizers = []string{"example.com/mine"}
	cluster.Put(&full)
	full = cluster.Leases("default")[0]
	seen, _, err := lease.Decode(&full, "foo")
	if err != nil {
		t.Fatal(err)
	}

	evict := claim.EvictLease{Name: seen.Name, UID: seen.UID, Version: seen.Version, Member: seen.Record.Member, PodUID: seen.Record.PodUID, Finalizers: seen.Finalizers}
	for what, change := range map[string]func(*claim.EvictLease){
		"an older version":      func(e *claim.EvictLease) { e.Version = "1" },
		"another Lease":         func(e *claim.EvictLease) { e.UID = "another" },
		"any version":           func(e *claim.EvictLease) { e.Version = "" },
		"any Lease of the name": func(e *claim.EvictLease) { e.UID = "" },
	} {
		wrong := evict
		change(&wrong)
		if _, outcome, err := b.Evict(ctx, wrong); outcome != claim.Conflict || err == nil {
			t.Errorf("%s is evicted: %v %v", what, outcome, err)
		}
	}
	clientset.ClearActions()
	void, outcome, err := b.Evict(ctx, evict)
	if outcome != claim.OK || !void.Record.Void() || void.Record.Member != "a" || void.Record.EvictedBy != "b_1" || void.UID != seen.UID {
		t.Fatalf("%v %v: %+v", outcome, err, void)
	}
	if actions := clientset.Actions(); len(actions) != 1 || actions[0].GetVerb() != "update" {
		t.Errorf("an eviction sends %v", actions)
	}
	left := cluster.Leases("default")[0]
	for key := range left.Annotations {
		switch key {
		case "operator-scaling.tom-ludwig.github.io/protocol", "operator-scaling.tom-ludwig.github.io/member", "operator-scaling.tom-ludwig.github.io/evicted-by", "operator-scaling.tom-ludwig.github.io/void-uid", lease.AnnotationChecksum:
		default:
			t.Errorf("annotation %s is left", key)
		}
	}
	if left.Labels[lease.LabelRing] != "foo" || !slices.Equal(left.Finalizers, full.Finalizers) {
		t.Errorf("labels %v, finalizers %v", left.Labels, left.Finalizers)
	}
	if len(left.OwnerReferences) != 1 || left.OwnerReferences[0].UID != "uid-a" || left.OwnerReferences[0].Name != "a" || left.OwnerReferences[0].Kind != "Pod" {
		t.Errorf("owners %v", left.OwnerReferences)
	}

	// Overlong values that another client wrote to the record are not kept.
	long := full
	long.Annotations["operator-scaling.tom-ludwig.github.io/member"] = strings.Repeat("x", 200<<10)
	cluster.Put(&long)
	full = cluster.Leases("default")[0]
	seen, _, _ = lease.Decode(&full, "foo")
	evict.Version, evict.Member, evict.PodUID = full.ResourceVersion, seen.Record.Member, seen.Record.PodUID
	if void, outcome, err = b.Evict(ctx, evict); outcome != claim.OK || !void.Record.Void() || len(void.Record.Member) > 253 {
		t.Errorf("%v %v: member of %d bytes", outcome, err, len(void.Record.Member))
	}

	// The eviction of a deleted Lease creates nothing.
	cluster.Remove("default", "foo-a")
	if _, outcome, _ := b.Evict(ctx, evict); outcome != claim.Conflict || len(cluster.Leases("default")) > 0 {
		t.Errorf("the eviction of a deleted Lease: %v", outcome)
	}
}
