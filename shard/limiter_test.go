// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zeebo/xxh3"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// slowClient is a clientset whose Lease requests each take a while. If it has a rate
// limiter, each request first waits for a token, within its context.
type slowClient struct {
	networkClient
	limiter flowcontrol.RateLimiter // nil for none

	mu       sync.Mutex
	rand     *rand.Rand
	latency  time.Duration  // of each way, at most
	deaf     bool           // requests are carried out, but their responses are lost
	requests map[string]int // by verb, since the last reset
	refused  int            // by the limiter
	pending  int            // evictions and deletions in progress
	most     int            // the highest value of pending
}

// defaultLimiter returns the rate limiter that kubernetes.NewForConfig uses.
func defaultLimiter() flowcontrol.RateLimiter { return flowcontrol.NewTokenBucketRateLimiter(5, 10) }

func newSlowClient(cluster *shardtest.Cluster, name string, limiter flowcontrol.RateLimiter) *slowClient {
	c := &slowClient{limiter: limiter, requests: map[string]int{}, rand: rand.New(rand.NewPCG(xxh3.HashString(name), 0)), latency: 3 * time.Millisecond}
	c.networkClient = networkClient{cluster.Client(name), c}
	return c
}

// send waits as long as a request does until it is served, and carries it out.
func (c *slowClient) send(ctx context.Context, verb string, l *coordinationv1.Lease, call func() error) error {
	if verb == "update" && l.Annotations["operator-scaling.tom-ludwig.github.io/evicted-by"] != "" {
		verb = "evict"
	}
	clearing := verb == "evict" || verb == "delete"
	c.mu.Lock()
	c.requests[verb]++
	if clearing {
		c.pending++
		c.most = max(c.most, c.pending)
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if clearing {
			c.pending--
		}
	}()
	if c.limiter != nil {
		if err := c.limiter.Wait(ctx); err != nil {
			c.mu.Lock()
			c.refused++
			c.mu.Unlock()
			return fmt.Errorf("client rate limiter Wait returned an error: %w", err)
		}
	}
	there, back, deaf := c.trip()
	time.Sleep(there)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := call()
	if deaf {
		<-ctx.Done()
		return ctx.Err()
	}
	pause(ctx, back)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// trip returns how long a request takes to the server and back, and whether the response is lost.
func (c *slowClient) trip() (there, back time.Duration, deaf bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	there = c.latency/2 + time.Duration(c.rand.Int64N(int64(c.latency)))/2
	return there, c.latency / 2, c.deaf
}

// degrade sets the latency, and whether responses are lost.
func (c *slowClient) degrade(latency time.Duration, deaf bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latency, c.deaf = latency, deaf
}

func (c *slowClient) stream(events watch.Interface) watch.Interface { return events }

// crowd is a large fleet, some members of which crash at the same time.
type crowd struct {
	t          *testing.T
	cluster    *shardtest.Cluster
	live, dead []*member
	clients    []*slowClient // of the live members
	oldest     time.Duration // the highest age of a live member's last renewal, since the others died
}

// gather starts members and waits until each key has one owner. The members that will crash
// are spread over the alphabetical order of the names.
func gather(t *testing.T, live, dead int, limiter func() flowcontrol.RateLimiter, settle time.Duration) *crowd {
	c := &crowd{t: t, cluster: shardtest.NewCluster()}
	total := live + dead
	for i := range total {
		name := fmt.Sprintf("m-%03d", i)
		client := newSlowClient(c.cluster, name, nil)
		if limiter != nil {
			client.limiter = limiter()
		}
		m := start(t, client, name)
		if (i+1)*live/total > i*live/total {
			c.live, c.clients = append(c.live, m), append(c.clients, client)
		} else {
			c.dead = append(c.dead, m)
		}
	}
	time.Sleep(settle)
	c.oneOwner(slices.Concat(c.live, c.dead)...)
	return c
}

// oneOwner fails unless each key has exactly one owner. With so many members, some may own
// no key.
func (c *crowd) oneOwner(members ...*member) {
	c.t.Helper()
	for key, who := range owners(members...) {
		if len(who) != 1 {
			c.t.Errorf("key %s is owned by %q, want exactly one", key, who)
			return
		}
	}
}

func (c *crowd) kill() {
	for _, m := range c.dead {
		c.cluster.Break(m.PodName(), shardtest.Unreachable)
	}
	for _, client := range c.clients {
		client.reset()
	}
}

func (c *slowClient) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.requests)
	c.refused, c.most = 0, 0
}

// unowned counts the keys without an owner, and the live members that are fenced.
func (c *crowd) unowned() (keys, fenced int) {
	for _, who := range owners(c.live...) {
		if len(who) == 0 {
			keys++
		}
	}
	for _, m := range c.live {
		if m.Fenced() {
			fenced++
		}
	}
	return keys, fenced
}

// recover waits until each key is owned by a live member, and returns how long that took
// after since. No live member may be fenced after grace, no more than four evictions and
// deletions may be in progress at once, and their total number is limited.
func (c *crowd) recover(since time.Time, within, grace time.Duration) time.Duration {
	c.t.Helper()
	for {
		time.Sleep(50 * time.Millisecond)
		keys, fenced := c.unowned()
		for _, m := range c.live {
			c.oldest = max(c.oldest, m.RenewalAge())
		}
		if fenced > 0 && time.Since(since) > grace {
			c.t.Errorf("%d of %d survivors are fenced after %v", fenced, len(c.live), time.Since(since))
			grace = time.Hour
		}
		if keys == 0 && c.clearedAway() {
			break
		}
		if time.Since(since) > within {
			c.t.Errorf("%d of 1000 keys have no owner after %v", keys, time.Since(since))
			break
		}
	}
	took := time.Since(since)
	c.oneOwner(c.live...)
	total, refused := map[string]int{}, 0
	for _, client := range c.clients {
		client.mu.Lock()
		for verb, n := range client.requests {
			total[verb] += n
		}
		refused += client.refused
		if client.most > 4 {
			c.t.Errorf("%d evictions and deletions were in progress at once", client.most)
		}
		client.mu.Unlock()
	}
	if n := total["evict"]; n > 3*len(c.dead) {
		c.t.Errorf("%d evictions were sent for %d dead members", n, len(c.dead))
	}
	c.t.Logf("%d live, %d crashed: recovered after %v; requests %v, rejected by the rate limiter %d; oldest renewal %v", len(c.live), len(c.dead), took, total, refused, c.oldest)
	return took
}

// clearedAway reports whether no crashed member holds a Lease.
func (c *crowd) clearedAway() bool {
	held := 0
	for _, l := range c.cluster.Leases(namespace) {
		if *l.Spec.HolderIdentity != "" {
			held++
		}
	}
	return held == len(c.live)
}

func (c *crowd) end() {
	all := slices.Concat(c.live, c.dead)
	for _, m := range all {
		m.stop()
	}
	for _, m := range all {
		<-m.done
	}
}

// The limit of G7, for many members that crash at the same time. The survivors' renewals do not
// wait behind their evictions (R28).
func TestG7_EachKeyIsOwnedAgainAfterManyCrashAtOnce(t *testing.T) {
	heavy(t)
	sizes := []struct {
		live, dead int
		limiter    func() flowcontrol.RateLimiter
		latency    time.Duration // of each way, from the crash on
	}{
		{10, 20, defaultLimiter, 3 * time.Millisecond},
		{20, 30, nil, 100 * time.Millisecond},
		{40, 60, defaultLimiter, 100 * time.Millisecond}, // takes half of the time of this file's tests
	}
	for _, size := range sizes {
		t.Run(fmt.Sprintf("%d of %d, limited %v, latency %v", size.dead, size.live+size.dead, size.limiter != nil, size.latency), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := gather(t, size.live, size.dead, size.limiter, 15*time.Second)
				died := time.Now()
				c.kill()
				for _, client := range c.clients {
					client.degrade(size.latency, false)
				}
				c.recover(died, shard.DefaultLeaseDuration+2*time.Second+10*size.latency, 0)
				if most := 3*time.Second + 2*size.latency + time.Second/2; c.oldest > most {
					t.Errorf("a renewal was %v old, want at most %v: it has waited", c.oldest, most)
				}
				c.end()
			})
		})
	}
}

// Some survivors get no responses, although their requests are carried out. They look alive to
// the others. They stop at their fence, the others do not, and as soon as the responses
// arrive again, each key is owned.
func TestMassDeathAndLostResponses(t *testing.T) {
	heavy(t)
	synctest.Test(t, func(t *testing.T) {
		c := gather(t, 12, 18, defaultLimiter, 15*time.Second)
		c.kill()
		for i, client := range c.clients {
			client.degrade(100*time.Millisecond, i%4 == 0)
		}
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			for key, who := range owners(c.live...) {
				if len(who) > 1 {
					t.Fatalf("%q may work on %s", who, key)
				}
			}
			for i, m := range c.live {
				if i%4 != 0 && m.Fenced() {
					t.Fatalf("%s is fenced, although it gets responses", m.PodName())
				}
			}
		}
		for _, client := range c.clients {
			client.degrade(3*time.Millisecond, false)
		}
		c.recover(time.Now(), shard.DefaultLeaseDuration+5*time.Second, 6*time.Second)
		c.end()
	})
}

// After an outage all survivors return at the same moment, and wait another lease duration for
// the crashed members.
func TestSurvivorsOfAnOutageRecoverFromManyDead(t *testing.T) {
	heavy(t)
	for name, limiter := range map[string]func() flowcontrol.RateLimiter{"unlimited": nil, "limited": defaultLimiter} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := gather(t, 20, 30, limiter, 15*time.Second)
				c.kill()
				for _, m := range c.live {
					c.cluster.Break(m.PodName(), shardtest.Unreachable)
				}
				time.Sleep(7500 * time.Millisecond)
				for _, m := range c.live {
					c.cluster.Break(m.PodName(), shardtest.None)
				}
				c.recover(time.Now(), shard.DefaultLeaseDuration+3*time.Second, 3*time.Second)
				c.end()
			})
		})
	}
}

// A whole fleet has crashed, and a single new member has to evict all of its members.
func TestANewcomerEvictsADeadFleet(t *testing.T) {
	heavy(t)
	for _, test := range []struct {
		dead    int
		limited bool
	}{
		{26, true},
		{40, false},
		{60, true},
	} {
		t.Run(fmt.Sprintf("%d dead, limited %v", test.dead, test.limited), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := gather(t, 0, test.dead, nil, 10*time.Second)
				c.kill()
				for _, m := range c.dead {
					m.stop()
				}
				for _, m := range c.dead {
					<-m.done
				}
				within := shard.DefaultLeaseDuration + 2*time.Second
				client := newSlowClient(c.cluster, "new", nil)
				if test.limited {
					client.limiter = defaultLimiter()
					// Each eviction takes a token. The claims of the partitions that become free,
					// and the lists after those claims, take about as many.
					within += time.Duration(2*test.dead) * time.Second / 5
				}
				started := time.Now()
				c.live, c.clients = []*member{start(t, client, "new")}, []*slowClient{client}
				c.recover(started, within, 5*time.Second)
				if err := c.live[0].end(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
