// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// sink is a log sink that records the messages. It blocks from a call of block until
// unblock is called.
type sink struct {
	mu       sync.Mutex
	blocked  chan struct{} // nil while it does not block
	messages []string
}

func (*sink) Init(klog.RuntimeInfo)                  {}
func (*sink) Enabled(level int) bool                 { return level <= 1 }
func (s *sink) Error(_ error, text string, _ ...any) { s.Info(0, text) }
func (s *sink) WithValues(...any) klog.LogSink       { return s }
func (s *sink) WithName(string) klog.LogSink         { return s }

func (s *sink) Info(_ int, text string, _ ...any) {
	s.mu.Lock()
	s.messages = append(s.messages, text)
	blocked := s.blocked
	s.mu.Unlock()
	if blocked != nil {
		<-blocked
	}
}

func (s *sink) block() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked = make(chan struct{})
}

func (s *sink) unblock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked != nil {
		close(s.blocked)
		s.blocked = nil
	}
}

// count returns how many messages begin with a text.
func (s *sink) count(text string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, message := range s.messages {
		if strings.HasPrefix(message, text) {
			n++
		}
	}
	return n
}

// startLogging is start with a log sink.
func startLogging(t *testing.T, client kubernetes.Interface, pod string, to *sink, before func(*shard.Sharder), change ...func(*shard.Config)) *member {
	t.Helper()
	cfg := shard.Config{Name: "foo", PodName: pod, Namespace: namespace, PodUID: podUID(pod)}
	for _, f := range change {
		f(&cfg)
	}
	s, err := shard.New(client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before(s)
	}
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.FromContext(context.Background()).WithSink(to)))
	m := &member{Sharder: s, stop: cancel, done: make(chan error, 1)}
	go func() { m.done <- s.Run(ctx) }()
	return m
}

func newTestQueue(s *shard.Sharder) shard.Queue[cache.ObjectName] {
	return shard.NewQueue(s, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
}

// begin gets an item from a queue and returns the context of the work on it.
func begin(q shard.Queue[cache.ObjectName], item cache.ObjectName) context.Context {
	q.Add(item)
	item, _ = q.Get()
	return q.Context(context.Background(), item)
}

var anItem = cache.ObjectName{Namespace: "default", Name: "foo"}

// Whatever blocks the loop, the contexts of the work end at the fence, and therefore before
// a peer may start. Work that does not end is reported.
func TestG1_ABlockedLoopDoesNotDelayTheFence(t *testing.T) {
	tests := map[string]func(a *member, log *sink, cluster *shardtest.Cluster) (unblock func()){
		"computation": func(a *member, _ *sink, _ *shardtest.Cluster) func() {
			ctx, cancel := context.WithCancel(context.Background())
			a.Hold(ctx)
			return cancel
		},
		"log sink": func(_ *member, log *sink, _ *shardtest.Cluster) func() {
			log.block()
			return log.unblock
		},
		"log sink, when the Lease is lost": func(_ *member, log *sink, cluster *shardtest.Cluster) func() {
			log.block()
			time.AfterFunc(3*time.Second, func() { cluster.Remove(namespace, "foo-a") })
			return log.unblock
		},
	}
	for name, block := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				var log sink
				var mu sync.Mutex
				var reports []time.Time
				a := startLogging(t, cluster.Client("a"), "a", &log, nil, func(c *shard.Config) {
					c.OnOverrun = func([]string) {
						mu.Lock()
						defer mu.Unlock()
						reports = append(reports, time.Now())
					}
				})
				q := newTestQueue(a.Sharder)
				time.Sleep(5 * time.Second)
				work := begin(q, anItem)

				unblock := block(a, &log, cluster)
				blocked := time.Now()
				late := newTestQueue(a.Sharder) // the loop never learns of it
				other := cache.ObjectName{Namespace: "default", Name: "other"}
				workOfLate := begin(late, other)
				var b *member
				var fenced, stopped, taken time.Time
				for (taken.IsZero() || time.Since(fenced) < 3*time.Second) && time.Since(blocked) < time.Minute {
					time.Sleep(5 * time.Millisecond)
					if b == nil && time.Since(blocked) > 4*time.Second {
						b = start(t, cluster.Client("b"), "b") // a logs that b has joined
					}
					if fenced.IsZero() && a.Fenced() {
						fenced = time.Now()
					}
					if stopped.IsZero() && work.Err() != nil && workOfLate.Err() != nil {
						stopped = time.Now()
					}
					if taken.IsZero() && b != nil && b.OwnsKey(anItem.String()) && !b.Fenced() {
						if work.Err() == nil {
							t.Error("the context has not ended, and a peer owns the key")
						}
						taken = time.Now()
					}
				}
				if fenced.IsZero() || taken.IsZero() {
					t.Fatalf("fenced at %v, taken over at %v", fenced, taken)
				}
				if stopped.IsZero() || stopped.Sub(fenced) > 10*time.Millisecond {
					t.Errorf("the contexts ended at %v, the fence was at %v", stopped, fenced)
				}
				if cause := context.Cause(work); cause != shard.ErrFenced {
					t.Errorf("the context has ended because of %v", cause)
				}
				mu.Lock()
				if len(reports) != 1 || reports[0].Sub(fenced) < 2*time.Second-10*time.Millisecond || reports[0].Sub(fenced) > 2200*time.Millisecond {
					t.Errorf("work that is still running was reported at %v, the fence was at %v", reports, fenced)
				}
				mu.Unlock()

				unblock()
				q.Done(anItem)
				late.Done(other)
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, a, b) // a has joined again
				mu.Lock()
				if len(reports) != 1 {
					t.Errorf("%d reports", len(reports))
				}
				mu.Unlock()
				for _, m := range []*member{a, b} {
					if err := m.end(); err != nil {
						t.Error(err)
					}
				}
				q.ShutDown()
				late.ShutDown()
			})
		})
	}
}

// When a virtual machine was suspended or a clock was set, no timer fires.
func TestG2_TheWallClockMayJumpWhileTheLoopIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var d changeRecorder
		a := start(t, cluster.Client("a"), "a", d.keep)
		q := newTestQueue(a.Sharder)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		want(t, &d, shard.Joined, shard.Activated)
		work := begin(q, anItem)
		ctx, cancel := context.WithCancel(context.Background())
		a.Hold(ctx)
		time.Sleep(time.Second)
		if work.Err() != nil {
			t.Fatal("the work was stopped before the fence")
		}
		a.JumpWall(time.Minute)
		if !a.Fenced() {
			t.Error("not fenced after the wall clock has jumped")
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if context.Cause(work) != shard.ErrFenced {
			t.Errorf("the context has ended because of %v", context.Cause(work))
		}
		want(t, &d, shard.Fenced)
		cancel()
		q.Done(anItem)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		want(t, &d, shard.Unfenced)
		if work := begin(q, anItem); a.Fenced() || work.Err() != nil {
			t.Errorf("the member does not work after the next renewal: %v", work.Err())
		}
		q.Done(anItem)
		if err := a.end(); err != nil {
			t.Error(err)
		}
		q.ShutDown()
	})
}

// A fence may reach a queue after a renewal has already lifted it. Then it does not stop
// the work that was handed out since.
func TestFence_ALateFenceStopsNoNewWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var d changeRecorder
		var q shard.Queue[cache.ObjectName]
		fencing, unpause := make(chan struct{}), make(chan struct{})
		a := startLogging(t, cluster.Client("a"), "a", &sink{}, func(s *shard.Sharder) {
			var once sync.Once
			s.OnFence(func() {
				once.Do(func() {
					close(fencing)
					<-unpause
				})
			})
			q = newTestQueue(s)
		}, d.keep)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		d.take()
		before := renewals(cluster, "foo-a")
		a.JumpWall(time.Minute)
		<-fencing
		if !a.Fenced() {
			t.Error("not fenced")
		}
		for a.Fenced() {
			time.Sleep(10 * time.Millisecond)
		}
		if renewals(cluster, "foo-a") == before {
			t.Error("the fence was lifted without a renewal")
		}
		work := begin(q, anItem)
		close(unpause)
		time.Sleep(time.Second)
		synctest.Wait()
		if work.Err() != nil {
			t.Errorf("work that was handed out after the fence was lifted has ended: %v", context.Cause(work))
		}
		want(t, &d) // it was lifted before OnChange could be called
		q.Done(anItem)
		if err := a.end(); err != nil {
			t.Error(err)
		}
		q.ShutDown()
	})
}

// The response to a renewal reaches the loop after the fence has stopped the work.
func TestFence_RacesWithRenewals(t *testing.T) {
	var unnoticed int
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, seed))
			cluster := shardtest.NewCluster()
			client := newFaultyClient(cluster.Client("a"), seed)
			client.set(false, time.Second)
			var log sink
			var d changeRecorder
			a := startLogging(t, client, "a", &log, nil, d.keep)
			q := newTestQueue(a.Sharder)
			time.Sleep(15 * time.Second)
			synctest.Wait()
			d.take()
			for range 20 {
				for a.Fenced() {
					time.Sleep(time.Millisecond)
				}
				work := begin(q, anItem)
				if work.Err() != nil {
					t.Errorf("seed %d: the context of new work has already ended: %v", seed, context.Cause(work))
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(4000+random.IntN(7000))*time.Millisecond)
				a.Hold(ctx)
				<-ctx.Done()
				cancel()
				time.Sleep(time.Duration(random.IntN(5000)) * time.Millisecond)
				if a.Fenced() {
					time.Sleep(200 * time.Millisecond)
					if a.Fenced() && work.Err() == nil {
						t.Errorf("seed %d: the context of work has not ended at the fence", seed)
					}
				}
				q.Done(anItem)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			// A member that reads its Lease while it is fenced checks its claims again (R52).
			d.changes = slices.DeleteFunc(d.changes, func(c shard.Change) bool { return c.Kind == shard.Draining || c.Kind == shard.Activated })
			for i, c := range d.changes {
				if kind := []shard.ChangeKind{shard.Fenced, shard.Unfenced}[i%2]; c.Kind != kind || c.Member != a.Identity() {
					t.Errorf("seed %d: change %d is %+v, want %s", seed, i, c, kind)
					break
				}
			}
			if len(d.changes) == 0 || len(d.changes)%2 != 0 {
				t.Errorf("seed %d: %d changes", seed, len(d.changes))
			}
			unnoticed += log.count("Work was stopped at the fence, and resumes")
			if err := a.end(); err != nil {
				t.Error(err)
			}
			q.ShutDown()
		})
	}
	if unnoticed == 0 {
		t.Error("no renewal has lifted a fence that the machine had not noticed")
	}
}

// While the loop is blocked, the response to a renewal waits for it, and the deadline of the
// renewal before passes. What a worker finds fenced then is handed out when the loop continues:
// the machine does not notice the fence, and so activates nothing again (R52).
func TestFence_ResumesWhatWasParkedBeforeALateRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlannedClient(shardtest.NewCluster().Client("a"), fast)
		a := start(t, w, "a")
		q := newTestQueue(a.Sharder)
		time.Sleep(5 * time.Second)
		w.replan(func(string) trip { return trip{back: time.Second} })
		time.Sleep(5 * time.Second)
		for before := w.requests("update"); w.requests("update") == before; {
			time.Sleep(time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 7*time.Second) // its response takes 1 s
		defer cancel()
		a.Hold(ctx)
		time.Sleep(6500 * time.Millisecond)
		if !a.Fenced() {
			t.Error("not fenced, although the last renewal that is known is too old")
		}
		got := make(chan struct{})
		go func() {
			q.Done(func() cache.ObjectName { item, _ := q.Get(); return item }())
			close(got)
		}()
		q.Add(anItem)
		time.Sleep(time.Second)
		if n := counted(t, a, "sharding_fence_trips_total"); n != 0 || a.Fenced() {
			t.Errorf("the machine has noticed the fence %v times", n)
		}
		select {
		case <-got:
		default:
			t.Error("an item that was parked at the fence is still parked after the renewal")
		}
		q.ShutDown()
		<-got
		end(t, a)
	})
}

// What was parked before an activation is handed out at once, and not only after the next renewal.
func TestActivation_AdmitsWhatIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlannedClient(shardtest.NewCluster().Client("a"), func(verb string) trip {
			if verb == "list" {
				return trip{back: time.Second} // so long are the partitions claimed, but not active
			}
			return fast(verb)
		})
		a := start(t, w, "a")
		q := newTestQueue(a.Sharder)
		for i := 0; !a.OwnsKey("default/foo") && i < 1000; i++ {
			q.Add(anItem) // dropped, and parked since the claim
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if q.Len() != 1 {
			t.Errorf("%d items are queued after the activation, want the one that was parked", q.Len())
		}
		q.ShutDown()
		end(t, a)
	})
}

// renewals counts the writes to a member's Lease.
func renewals(cluster *shardtest.Cluster, lease string) (n int) {
	for _, l := range cluster.History() {
		if l.Name == lease {
			n++
		}
	}
	return n
}

// OnChange never returns. The member still renews, hands over and stops.
func TestOnChange_MayBlockForever(t *testing.T) {
	for _, on := range []shard.ChangeKind{shard.Joined, shard.Activated, shard.Draining, shard.Released, shard.Left} {
		t.Run(string(on), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				forever := make(chan struct{})
				a := start(t, cluster.Client("a"), "a", func(c *shard.Config) {
					c.OnChange = func(c shard.Change) {
						if c.Kind == on {
							<-forever
						}
					}
				})
				time.Sleep(5 * time.Second)
				b := start(t, cluster.Client("b"), "b")
				time.Sleep(6 * time.Second) // the write of the release may wait 1.5 s of it
				oneOwnerEach(t, a, b)
				before := renewals(cluster, "foo-a")
				for range 600 {
					time.Sleep(100 * time.Millisecond)
					if a.Fenced() || a.Ready() != nil {
						t.Fatalf("a is fenced, or not ready: %v", a.Ready())
					}
				}
				if n := renewals(cluster, "foo-a") - before; n < 18 {
					t.Errorf("%d renewals in a minute", n)
				}
				began := time.Now()
				if err := a.end(); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("Run has returned after %v", took)
				}
				time.Sleep(time.Second)
				oneOwnerEach(t, b)
				if err := b.end(); err != nil {
					t.Error(err)
				}
				close(forever)
			})
		})
	}
}

// OnChange may call the Sharder, end Run and even wait for it.
func TestOnChange_MayUseTheSharder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var a *member
		ready, returned := make(chan struct{}), make(chan struct{})
		var page int
		client := cluster.Client("a")
		a = start(t, client, "a", func(c *shard.Config) {
			c.OnChange = func(c shard.Change) {
				if c.Kind != shard.Activated {
					return
				}
				<-ready
				a.OwnsKey("x/y")
				page = get(a.DebugHandler(), "/").Code
				a.stop()
				<-returned
			}
		})
		close(ready)
		if err := <-a.done; err != nil {
			t.Error(err)
		}
		close(returned)
		if page != 200 {
			t.Errorf("the status page returns %d in OnChange", page)
		}
	})
}

// The write that makes partitions available to a peer waits for OnChange for a while.
func TestOnChange_ReturnsFromReleasedBeforeAPeerStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var mu sync.Mutex
		var busy bool
		a := start(t, cluster.Client("a"), "a", func(c *shard.Config) {
			c.OnChange = func(c shard.Change) {
				set := func(to bool) {
					mu.Lock()
					defer mu.Unlock()
					busy = to
				}
				switch c.Kind {
				case shard.Draining:
					set(true)
					time.Sleep(700 * time.Millisecond)
				case shard.Released:
					time.Sleep(700 * time.Millisecond)
					set(false)
				}
			}
		})
		time.Sleep(5 * time.Second)
		b := start(t, cluster.Client("b"), "b")
		took := false
		for range 5000 {
			time.Sleep(time.Millisecond)
			owned := len(active(t, b))
			mu.Lock() // after the look at b: a may return, and b start, between two looks
			is := busy
			mu.Unlock()
			if owned > 0 {
				took = true
				if is {
					t.Fatalf("b owns %d keys before OnChange of a has returned from Released", owned)
				}
			}
		}
		if !took {
			t.Error("b owns nothing")
		}
		for _, m := range []*member{a, b} {
			if err := m.end(); err != nil {
				t.Error(err)
			}
		}
	})
}

// active returns which of manyKeys a member owns.
func active(t *testing.T, m *member) (keys []string) {
	t.Helper()
	for i := range 100 {
		if key := fmt.Sprintf("default/foo-%d", i); m.OwnsKey(key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// The changes that remain when Run ends are delivered before it returns.
func TestOnChange_GetsEverythingBeforeRunReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var kinds []shard.ChangeKind
		a := start(t, cluster.Client("a"), "a", func(c *shard.Config) {
			c.OnChange = func(c shard.Change) {
				time.Sleep(400 * time.Millisecond)
				kinds = append(kinds, c.Kind)
			}
		})
		time.Sleep(5 * time.Second)
		if err := a.end(); err != nil {
			t.Error(err)
		}
		want := []shard.ChangeKind{shard.Joined, shard.Activated, shard.Draining, shard.Released, shard.Left}
		if !slices.Equal(slices.Compact(kinds), want) {
			t.Errorf("OnChange got %v, want %v", kinds, want)
		}
	})
}

// A hook that blocks, or waits for Run, does not prevent Run from returning.
func TestOnOverrun_MayBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var a *member
		var hooks int
		returned := make(chan struct{})
		a = start(t, cluster.Client("a"), "a", func(c *shard.Config) {
			c.OnOverrun = func([]string) {
				hooks++
				a.stop()
				<-returned
			}
		})
		q := newTestQueue(a.Sharder)
		time.Sleep(5 * time.Second)
		begin(q, anItem)
		cluster.Break("a", shardtest.Unreachable)
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if hooks != 1 {
			t.Fatalf("the hook was called %d times", hooks)
		}
		q.Done(anItem)
		began := time.Now()
		if err := <-a.done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("Run has returned after %v", took)
		}
		close(returned)
		q.ShutDown()
	})
}
