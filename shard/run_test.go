// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

const namespace = "default"

// testRun is different in each run of the tests: the lock of a Pod is shared by all
// processes of a machine, and several of them may run the same tests.
var testRun = string(uuid.NewUUID())

func podUID(pod string) string {
	return fmt.Sprintf("%08x-%s", crc32.ChecksumIEEE([]byte(pod)), testRun)
}

// member is one running replica.
type member struct {
	*shard.Sharder
	stop context.CancelFunc
	done chan error
	log  ktesting.Buffer
}

// heavy skips a test that would take minutes under the race detector. "make test" runs
// all tests of this package without it, and those that are not heavy with it.
func heavy(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long under the race detector: skipped with -short")
	}
}

// start runs a member of the ring "foo".
func start(t *testing.T, client kubernetes.Interface, pod string, change ...func(*shard.Config)) *member {
	t.Helper()
	return startWith(t, client, pod, func(*shard.Sharder) {}, change...)
}

// startWith is start with a setup before Run.
func startWith(t *testing.T, client kubernetes.Interface, pod string, setUp func(*shard.Sharder), change ...func(*shard.Config)) *member {
	t.Helper()
	cfg := shard.Config{Name: "foo", PodName: pod, Namespace: namespace, PodUID: podUID(pod)}
	for _, f := range change {
		f(&cfg)
	}
	s, err := shard.New(client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	setUp(s)
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(1), ktesting.BufferLogs(true)))
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logger))
	m := &member{Sharder: s, stop: cancel, done: make(chan error, 1), log: logger.GetSink().(ktesting.Underlier).GetBuffer()}
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		m.done <- s.Run(ctx)
	}()
	t.Cleanup(func() { // a failed test must leave no goroutine in its bubble
		cancel()
		<-returned
	})
	return m
}

// end stops the member and returns what Run returned.
func (m *member) end() error {
	m.stop()
	return <-m.done
}

// logged returns the lines that the member has logged at the default verbosity since a time.
func (m *member) logged(since time.Time) []string {
	var lines []string
	for _, e := range m.log.Data() {
		if e.Verbosity == 0 && !e.Timestamp.Before(since) {
			lines = append(lines, fmt.Sprint(e.Message, " ", e.Err, " ", e.ParameterKVList))
		}
	}
	return lines
}

// counted returns the sum of a member's metric over all labels.
func counted(t *testing.T, m *member, name string) (sum float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, s := range f.GetMetric() {
				sum += s.GetCounter().GetValue() + s.GetGauge().GetValue()
			}
			return sum
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// manyKeys are the keys that owners and gaps check.
var manyKeys = func() (keys []string) {
	for i := range 1000 {
		keys = append(keys, fmt.Sprintf("default/foo-%d", i))
	}
	return keys
}()

// owners returns, for each of manyKeys, the members that may work on it.
func owners(members ...*member) map[string][]string {
	owners := map[string][]string{}
	for _, key := range manyKeys {
		owners[key] = nil
		for _, m := range members {
			if m.OwnsKey(key) && !m.Fenced() {
				owners[key] = append(owners[key], m.PodName())
			}
		}
	}
	return owners
}

// oneOwnerEach fails unless each key has exactly one owner, and each member owns something.
func oneOwnerEach(t *testing.T, members ...*member) map[string][]string {
	t.Helper()
	all := owners(members...)
	count := map[string]int{}
	for key, who := range all {
		if len(who) != 1 {
			t.Fatalf("key %s is owned by %q, want exactly one", key, who)
		}
		count[who[0]]++
	}
	for _, m := range members {
		if count[m.PodName()] == 0 {
			t.Errorf("member %s owns nothing: %v", m.PodName(), count)
		}
	}
	return all
}

// gaps measures how long keys are without an owner.
type gaps struct {
	since   map[string]time.Time
	longest time.Duration
}

// look returns how many keys no member may work on now.
func (g *gaps) look(members ...*member) int {
	members = slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m.Fenced() })
	if g.since == nil {
		g.since = map[string]time.Time{}
	}
	for _, key := range manyKeys {
		if slices.ContainsFunc(members, func(m *member) bool { return m.OwnsKey(key) }) {
			delete(g.since, key)
		} else if began, ok := g.since[key]; ok {
			g.longest = max(g.longest, time.Since(began))
		} else {
			g.since[key] = time.Now()
		}
	}
	return len(g.since)
}

// wait checks repeatedly until each key has an owner or the limit has passed. It returns how
// long that took.
func (g *gaps) wait(limit time.Duration, members ...*member) time.Duration {
	began := time.Now()
	for g.look(members...) > 0 && time.Since(began) < limit {
		time.Sleep(100 * time.Millisecond)
	}
	return time.Since(began)
}

func TestRun_EachKeyHasOneOwnerThroughJoinsStopsAndCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		b := start(t, cluster.Client("b"), "b")
		c := start(t, cluster.Client("c"), "c")
		time.Sleep(5 * time.Second)
		before := oneOwnerEach(t, a, b, c)

		d := start(t, cluster.Client("d"), "d")
		time.Sleep(2 * time.Second)
		after := oneOwnerEach(t, a, b, c, d)
		for key, who := range after {
			if who[0] != "d" && !slices.Equal(who, before[key]) {
				// Bounded loads may move a few keys between members that stay.
				t.Logf("key %s moved from %s to %s", key, before[key], who)
			}
		}

		if err := b.end(); err != nil {
			t.Errorf("a graceful stop returned %v", err)
		}
		time.Sleep(250 * time.Millisecond)
		oneOwnerEach(t, a, c, d)
		for _, l := range cluster.Leases(namespace) {
			// The garbage collector or a peer deletes it (R39).
			if m, err := inspect.Decode(&l, "foo"); l.Name == "foo-b" && (err != nil || !m.Void() || m.EvictedBy != "") {
				t.Errorf("the member that stopped has left %+v, %v", m, err)
			}
		}

		// c crashes: none of its requests arrives from now on.
		cluster.Break("c", shardtest.Unreachable)
		time.Sleep(8 * time.Second)
		if keys := owners(a, c, d); len(keys) == 0 {
			t.Fatal("no keys")
		}
		time.Sleep(2 * time.Second) // 9 s after its last renewal c is fenced
		if !c.Fenced() {
			t.Error("c still works although it could not renew its Lease for longer than RenewDeadline")
		}
		time.Sleep(7 * time.Second) // 15 s lease duration + 2 s after the last renewal
		oneOwnerEach(t, a, d)

		cluster.Break("c", shardtest.None)
		time.Sleep(30 * time.Second)
		oneOwnerEach(t, a, c, d)

		for _, m := range []*member{a, c, d} {
			synctest.Wait() // its watch shows that the others have released theirs
			if err := m.end(); err != nil {
				t.Errorf("%s: %v", m.PodName(), err)
			}
		}
		if left := cluster.Leases(namespace); len(left) != 0 {
			t.Errorf("%d Leases are left after all members have stopped", len(left))
		}
	})
}

func TestRun_OutageMovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		pods := []string{"a", "b", "c"}
		var members []*member
		for _, pod := range pods {
			members = append(members, start(t, cluster.Client(pod), pod))
		}
		time.Sleep(5 * time.Second)
		before := oneOwnerEach(t, members...)
		for _, pod := range pods {
			cluster.Break(pod, shardtest.Unreachable)
		}
		time.Sleep(time.Minute)
		for _, m := range members {
			if !m.Fenced() {
				t.Errorf("%s is not fenced", m.PodName())
			}
		}
		for _, pod := range pods {
			cluster.Break(pod, shardtest.None)
		}
		time.Sleep(10 * time.Second)
		after := oneOwnerEach(t, members...)
		for key := range before {
			if !slices.Equal(before[key], after[key]) {
				t.Fatalf("key %s moved from %s to %s", key, before[key], after[key])
			}
		}
		for _, m := range members {
			if err := m.end(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRun_CalledTwiceReturnsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(time.Second)
		if err := a.Run(context.Background()); !errors.Is(err, shard.ErrAlreadyRun) {
			t.Errorf("the second Run returned %v", err)
		}
		if err := a.end(); err != nil {
			t.Error(err)
		}
	})
}

// The garbage collector deletes each Lease, because no Pod has the configured UID.
func TestRun_DropsAnOwnerReferenceToAPodThatDoesNotExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		owners := func() int {
			time.Sleep(40 * time.Second)
			synctest.Wait()
			leases := cluster.Leases(namespace)
			if len(leases) != 1 {
				t.Fatalf("%d Leases", len(leases))
			}
			return len(leases[0].OwnerReferences)
		}
		for n := range 3 {
			if owners() != 1 {
				t.Errorf("no owner reference after %d deletions", n)
			}
			cluster.Remove(namespace, "foo-a")
		}
		if n := owners(); n != 0 {
			t.Errorf("%d owner references after three deletions", n)
		}
		if err := a.Ready(); err != nil {
			t.Error(err)
		}
		if err := a.end(); err != nil {
			t.Error(err)
		}
	})
}
