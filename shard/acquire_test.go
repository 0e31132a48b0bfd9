// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// acquired is a key that was acquired, or the error.
type acquired struct {
	ctx  context.Context
	done func()
	err  error
}

// acquire calls Acquire on a goroutine.
func acquire(ctx context.Context, m *member, key string) <-chan acquired {
	c := make(chan acquired, 1)
	go func() {
		var a acquired
		a.ctx, a.done, a.err = m.Acquire(ctx, key)
		c <- a
	}()
	return c
}

// now returns what the channel holds. It fails if Acquire still waits.
func now(t *testing.T, c <-chan acquired) acquired {
	t.Helper()
	synctest.Wait()
	select {
	case a := <-c:
		return a
	default:
		t.Fatal("Acquire still waits")
		return acquired{}
	}
}

// waits fails if Acquire has returned.
func waits(t *testing.T, c <-chan acquired) {
	t.Helper()
	synctest.Wait()
	if len(c) > 0 {
		t.Fatalf("Acquire did not wait: %v", (<-c).err)
	}
}

// owner returns a member that owns all keys, and its cluster.
func owner(t *testing.T, change ...func(*shard.Config)) (*member, *shardtest.Cluster) {
	t.Helper()
	cluster := shardtest.NewCluster()
	m := start(t, cluster.Client("a"), "a", change...)
	time.Sleep(5 * time.Second)
	return m, cluster
}

func TestAcquire_CallersOfOneKeyTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := owner(t)
		first := now(t, acquire(t.Context(), m, "x/y"))
		second := acquire(t.Context(), m, "x/y")
		waits(t, second)
		third := acquire(t.Context(), m, "x/y")
		waits(t, third)
		other := now(t, acquire(t.Context(), m, "x/z"))
		if _, _, err := m.TryAcquire(t.Context(), "x/y"); !errors.Is(err, shard.ErrInUse) {
			t.Errorf("TryAcquire of a key that is in use: %v", err)
		}
		first.done()
		if first.ctx.Err() == nil {
			t.Error("done has not ended the context")
		}
		a := now(t, second)
		first.done() // does nothing: the key belongs to the second caller now
		waits(t, third)
		if a.ctx.Err() != nil || other.ctx.Err() != nil {
			t.Errorf("contexts have ended: %v, %v", context.Cause(a.ctx), context.Cause(other.ctx))
		}
		a.done()
		now(t, third).done()
		other.done()
		_, done, err := m.TryAcquire(t.Context(), "x/y")
		if err != nil {
			t.Fatal(err)
		}
		done()
	})
}

// The key is free for a moment between done and the next caller's turn.
func TestAcquire_NoCallerJumpsTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := owner(t)
		for range 200 {
			first := now(t, acquire(t.Context(), m, "x/y"))
			second := acquire(t.Context(), m, "x/y")
			synctest.Wait()
			first.done()
			if _, done, err := m.TryAcquire(t.Context(), "x/y"); !errors.Is(err, shard.ErrInUse) {
				done()
				t.Fatalf("TryAcquire before the next caller's turn: %v", err)
			}
			now(t, second).done()
		}
	})
}

// An activation wakes all callers at once.
func TestAcquire_CallersThatAreWokenTogetherKeepTheirTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, shardtest.NewCluster().Client("a"), "a")
		first, second := map[string]<-chan acquired{}, map[string]<-chan acquired{}
		for _, key := range manyKeys {
			first[key] = acquire(t.Context(), m, key)
			waits(t, first[key])
			second[key] = acquire(t.Context(), m, key)
			waits(t, second[key])
		}
		time.Sleep(5 * time.Second)
		for _, key := range manyKeys {
			if len(second[key]) > 0 {
				t.Fatalf("the second caller for %s was first", key)
			}
			now(t, first[key]).done()
			now(t, second[key]).done()
		}
	})
}

// A caller that gives up must not keep the turn that it was given.
func TestAcquire_ACallerThatGivesUpPassesItsTurnOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := owner(t)
		first := now(t, acquire(t.Context(), m, "x/y"))
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		second, third := acquire(ctx, m, "x/y"), (<-chan acquired)(nil)
		waits(t, second)
		third = acquire(t.Context(), m, "x/y")
		waits(t, third)
		cancel(why)
		first.done()
		if a := now(t, second); !errors.Is(a.err, why) {
			t.Errorf("a caller whose context has ended: %v", a.err)
		}
		now(t, third).done()
		if _, _, err := m.TryAcquire(ctx, "x/y"); !errors.Is(err, why) {
			t.Errorf("TryAcquire with a context that has ended: %v", err)
		}
	})
}

func TestAcquire_WaitsForTheHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cluster := owner(t)
		item, _ := twoOfOnePartition(t, manyKeys, "b")
		key := item.String()
		held := now(t, acquire(t.Context(), a, key))
		b := start(t, cluster.Client("b"), "b")
		next := acquire(t.Context(), b, key) // before its member has joined
		for a.OwnsKey(key) {
			time.Sleep(time.Millisecond)
		}
		back := acquire(t.Context(), a, key) // waits until the key comes back
		// The drain may be for nothing, and then there is no new Add.
		if _, _, err := a.TryAcquire(t.Context(), key); !errors.Is(err, shard.ErrNotActive) || errors.Is(err, shard.ErrNotOwned) {
			t.Errorf("TryAcquire of a key that is being drained: %v", err)
		}
		time.Sleep(shard.DefaultDrainGrace - 100*time.Millisecond)
		if held.ctx.Err() != nil {
			t.Errorf("the context has ended within DrainGrace: %v", context.Cause(held.ctx))
		}
		time.Sleep(200 * time.Millisecond)
		if !errors.Is(context.Cause(held.ctx), shard.ErrDraining) {
			t.Errorf("the context has ended with %v after DrainGrace", context.Cause(held.ctx))
		}
		waits(t, next)
		time.Sleep(time.Second)
		waits(t, next)
		held.done()
		time.Sleep(250 * time.Millisecond)
		gained := now(t, next)
		waits(t, back)
		if _, _, err := a.TryAcquire(t.Context(), key); !errors.Is(err, shard.ErrNotOwned) || !errors.Is(err, shard.ErrNotActive) {
			t.Errorf("TryAcquire of a key of another member: %v", err)
		}
		gained.done()
		if err := b.end(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		now(t, back).done()
	})
}

// Whatever Acquire waits for, it may come only after the drain, and the drain waits for the caller.
// Without the error, the drain would take DrainGrace.
func TestAcquire_InWorkThatIsDrainedDoesNotHoldUpTheDrain(t *testing.T) {
	for name, work := range map[string]func(m *member, q shard.Queue[cache.ObjectName], item cache.ObjectName) (context.Context, func()){
		"on an item of a queue": func(_ *member, q shard.Queue[cache.ObjectName], item cache.ObjectName) (context.Context, func()) {
			q.Add(item)
			got, ctx, _ := q.GetWithContext(context.TODO())
			return ctx, func() { q.Done(got) }
		},
		"on a key": func(m *member, _ shard.Queue[cache.ObjectName], item cache.ObjectName) (context.Context, func()) {
			ctx, done, err := m.Acquire(context.TODO(), item.String())
			if err != nil {
				panic(err)
			}
			return ctx, done
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, cluster := owner(t)
				q := newTestQueue(a.Sharder)
				defer q.ShutDown()
				item, other := twoOfOnePartition(t, manyKeys, "b")
				ctx, end := work(a, q, item)
				defer end()
				first := now(t, acquire(t.Context(), a, other.String()))
				defer first.done()
				second := acquire(t.Context(), a, other.String())
				waits(t, second)
				nested := acquire(ctx, a, other.String()) // before the drain, and behind others
				waits(t, nested)
				b := start(t, cluster.Client("b"), "b")
				for a.OwnsKey(item.String()) {
					time.Sleep(time.Millisecond)
				}
				if err := now(t, nested).err; !errors.Is(err, shard.ErrDraining) {
					t.Errorf("Acquire that waited when the drain began: %v", err)
				}
				waits(t, second)
				for _, key := range []string{item.String(), other.String()} {
					if err := now(t, acquire(ctx, a, key)).err; !errors.Is(err, shard.ErrDraining) {
						t.Errorf("Acquire during the drain: %v", err)
					}
				}
				kept := ""
				for _, key := range manyKeys {
					if a.OwnsKey(key) {
						kept = key
					}
				}
				now(t, acquire(ctx, a, kept)).done() // the work may end by itself
				first.done()
				end()
				time.Sleep(250 * time.Millisecond)
				if !b.OwnsKey(item.String()) {
					t.Error("the work has ended, and the partition is not handed over")
				}
			})
		})
	}
}

func TestAcquire_DrainTimeout(t *testing.T) {
	for name, leave := range map[string]func(*member, *shardtest.Cluster){
		"a stop":            func(m *member, _ *shardtest.Cluster) { m.stop() },
		"the Lease is lost": func(_ *member, cluster *shardtest.Cluster) { cluster.Remove(namespace, "foo-a") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, cluster := owner(t)
				held := now(t, acquire(t.Context(), m, "x/y"))
				next := acquire(t.Context(), m, "x/y")
				leave(m, cluster)
				time.Sleep(shard.DefaultDrainGrace + shard.DefaultDrainTimeout + 2*time.Second)
				if err := <-m.done; !errors.Is(err, shard.ErrDrainTimeout) {
					t.Errorf("Run has returned %v", err)
				}
				if a := now(t, next); !errors.Is(a.err, shard.ErrStopped) {
					t.Errorf("Acquire after Run: %v", a.err)
				}
				held.done()
				if _, _, err := m.TryAcquire(t.Context(), "x/y"); !errors.Is(err, shard.ErrStopped) {
					t.Errorf("TryAcquire after Run: %v", err)
				}
			})
		})
	}
}

func TestAcquire_EndsAtTheFenceAndResumesAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, cluster := owner(t)
		held := now(t, acquire(t.Context(), m, "x/y"))
		cluster.Break("a", shardtest.Unreachable)
		time.Sleep(9500 * time.Millisecond)
		if !errors.Is(context.Cause(held.ctx), shard.ErrFenced) {
			t.Errorf("the context has ended with %v", context.Cause(held.ctx))
		}
		held.done()
		next := acquire(t.Context(), m, "x/y")
		waits(t, next)
		if _, _, err := m.TryAcquire(t.Context(), "x/z"); !errors.Is(err, shard.ErrNotActive) || errors.Is(err, shard.ErrNotOwned) {
			t.Errorf("TryAcquire on a fenced member: %v", err)
		}
		cluster.Break("a", shardtest.None)
		time.Sleep(5 * time.Second)
		now(t, next).done()
	})
}

// The Lease of the member is deleted. It joins again when the work on the key has ended.
func TestAcquire_SurvivesARejoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, cluster := owner(t)
		held := now(t, acquire(t.Context(), m, "x/y"))
		next := acquire(t.Context(), m, "x/y")
		cluster.Remove(namespace, "foo-a")
		time.Sleep(time.Second)
		if !errors.Is(context.Cause(held.ctx), shard.ErrFenced) {
			t.Errorf("the context has ended with %v", context.Cause(held.ctx))
		}
		time.Sleep(10 * time.Second)
		waits(t, next)
		before := m.Identity()
		held.done()
		time.Sleep(time.Minute)
		now(t, next).done()
		if m.Identity() == before {
			t.Error("the member has not joined again")
		}
	})
}

func TestAcquire_ReturnsWhenTheMemberStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := owner(t)
		held := now(t, acquire(t.Context(), m, "x/y"))
		var waiting []<-chan acquired
		for range 3 {
			waiting = append(waiting, acquire(t.Context(), m, "x/y"))
		}
		synctest.Wait()
		m.stop()
		for _, c := range waiting { // although the drain has not ended
			if a := now(t, c); !errors.Is(a.err, shard.ErrStopped) {
				t.Errorf("Acquire on a member that stops: %v", a.err)
			}
		}
		if held.ctx.Err() != nil {
			t.Errorf("the stop has ended the context: %v", context.Cause(held.ctx))
		}
		held.done()
		time.Sleep(100 * time.Millisecond)
		if err := m.end(); err != nil {
			t.Error(err)
		}
		if _, _, err := m.TryAcquire(t.Context(), "x/y"); !errors.Is(err, shard.ErrStopped) {
			t.Errorf("TryAcquire after Run: %v", err)
		}
	})
}

// The context carries the token, and requests with it are refused after the handover began.
func TestAcquire_CarriesTheFencing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := owner(t, func(c *shard.Config) { c.DrainGrace = -1 })
		type value struct{}
		parent, cancel := context.WithCancel(context.WithValue(t.Context(), value{}, "kept"))
		held := now(t, acquire(parent, m, "x/y"))
		cancel()
		if token, ok := shard.TokenFromContext(held.ctx); !ok || token != m.Token("x/y") || token == "" {
			t.Errorf("the token is %q, %v", token, ok)
		}
		if held.ctx.Value(value{}) != "kept" || held.ctx.Err() != nil {
			t.Error("the context has lost a value, or has ended with its parent")
		}
		if ended := now(t, acquire(parent, m, "x/y")); !errors.Is(ended.err, context.Canceled) {
			t.Errorf("Acquire with a context that has ended: %v", ended.err)
		}
		sent := 0
		transport := m.WrapTransport(roundTripper(func(*http.Request) (*http.Response, error) {
			sent++
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		}))
		put := func() error {
			r, err := http.NewRequestWithContext(held.ctx, http.MethodPut, "https://example.com/x", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = transport.RoundTrip(r)
			return err
		}
		if err := put(); err != nil || sent != 1 {
			t.Errorf("%d requests were sent: %v", sent, err)
		}
		m.stop()
		synctest.Wait()
		if err := put(); !errors.Is(err, shard.ErrLostOwnership) || sent != 1 {
			t.Errorf("%d requests were sent: %v", sent, err)
		}
		held.done()
	})
}

// Loops on all members acquire the same keys while members join, stop, and are cut off.
func TestAcquire_NoTwoMembersHoldAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var x shardtest.Exclusive
		var loops sync.WaitGroup
		defer loops.Wait()
		join := func(pod string) *member {
			m := start(t, cluster.Client(pod), pod, func(c *shard.Config) { c.DrainGrace = time.Second })
			for i := range 40 {
				loops.Go(func() {
					for n := 0; ; n++ {
						key := fmt.Sprintf("x/%d", i%20) // two loops for each key
						ctx, done, err := m.Acquire(context.Background(), key)
						if errors.Is(err, shard.ErrStopped) {
							return
						}
						work := x.Begin(pod, key, "")
						pause(ctx, time.Duration(50+(i*37+n*101)%1500)*time.Millisecond)
						work.End(ctx.Err() == nil)
						done()
					}
				})
			}
			return m
		}
		a := join("a")
		time.Sleep(10 * time.Second)
		b := join("b")
		time.Sleep(10 * time.Second)
		c := join("c")
		time.Sleep(10 * time.Second)
		cluster.Break("b", shardtest.Unreachable)
		time.Sleep(30 * time.Second)
		cluster.Break("b", shardtest.None)
		time.Sleep(20 * time.Second)
		for _, m := range []*member{a, b, c} {
			if err := m.end(); err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Second)
		}
		if overlaps := x.Overlaps(); len(overlaps) > 0 || x.Total() < 1000 {
			t.Errorf("%d overlaps in %d pieces of work: %v", len(overlaps), x.Total(), overlaps[:min(1, len(overlaps))])
		}
		t.Logf("%d pieces of work", x.Total())
	})
}

// KeyOf is the way from an object to the key that Acquire takes, whatever the ring's key is.
func TestAcquire_TakesTheKeyOfAnObject(t *testing.T) {
	for name, key := range map[string]shard.Key{
		"name": shard.ByName, "namespace": shard.ByNamespace, "uid": shard.ByUID,
		"func": shard.ByFunc("tenant", func(o metav1.Object) string { return o.GetLabels()["tenant"] }),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				withKey := func(c *shard.Config) { c.Key = key }
				a, cluster := owner(t, withKey)
				start(t, cluster.Client("b"), "b", withKey)
				time.Sleep(10 * time.Second)
				acquired := 0
				for i := range 100 {
					text := strconv.Itoa(i)
					obj := &metav1.ObjectMeta{Namespace: "ns-" + text, Name: text, UID: uuid.NewUUID(), Labels: map[string]string{"tenant": text}}
					_, done, err := a.TryAcquire(t.Context(), a.KeyOf(obj))
					if a.Owns(obj) != (err == nil) {
						t.Fatalf("object %s: Owns is %v, TryAcquire returned %v", text, a.Owns(obj), err)
					}
					if err == nil {
						acquired++
						done()
					}
				}
				if acquired < 20 || acquired > 80 {
					t.Errorf("%d of 100 keys acquired by one of two members", acquired)
				}
			})
		})
	}
}

// The informers show an object without a key to no member. Nothing else may say that this member owns it.
func TestAcquire_AnObjectWithoutAKeyBelongsToNoMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := owner(t, func(c *shard.Config) {
			c.Key = shard.ByFunc("tenant", func(o metav1.Object) string { return o.GetLabels()["tenant"] })
		})
		obj := &metav1.ObjectMeta{Namespace: "x", Name: "y"}
		if a.Owns(obj) || a.OwnsKey(a.KeyOf(obj)) {
			t.Error("owned")
		}
		if _, _, err := a.TryAcquire(t.Context(), a.KeyOf(obj)); !errors.Is(err, shard.ErrNotOwned) {
			t.Errorf("TryAcquire: %v", err)
		}
		if got := now(t, acquire(t.Context(), a, a.KeyOf(obj))); !errors.Is(got.err, shard.ErrNotOwned) {
			t.Errorf("Acquire: %v", got.err)
		}
	})
}
