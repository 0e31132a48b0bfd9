// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"math/rand/v2"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// profile describes a fleet and the faults that it suffers.
type profile struct {
	kind       string
	length     time.Duration // how long there are faults
	members    int           // at the beginning
	most       int           // at any time
	drift      bool          // clocks run at rates that differ as much as the timing tolerates
	freezes    bool          // some pauses stop the monotonic clock
	quarantine bool
	otherPace  float64 // share of the members that are configured with shorter durations
	idle       float64 // share of the moments at which nothing is in flight on a point
	slowWork   float64 // share of the work that takes longer than the grace period, or ignores its context
	lag        time.Duration
	slowCaches float64       // share of the processes whose object cache lags
	hooks      float64       // probability of a fault at an action
	trip       time.Duration // how long each request takes, 0 for a few ms
	limited    bool          // all requests of a process wait for a rate limiter like client-go's
	faults     []fault
	pair       pair // happens first; empty: none
	parameters ring.Parameters
	next       ring.Parameters // of processes that start after switchAt
	switchAt   time.Duration
}

// fault is a type of fault that happens at random times.
type fault struct {
	name  string
	every time.Duration // on average
	do    func(*sim)
}

func (f fault) String() string { return f.name }

// The types of profiles. Most are a mixture of all faults. Some need a quiet fleet, because
// what they check is guaranteed only there.
const (
	mixed    = "mixed"
	outages  = "outages"  // nothing but outages of the API: no member is evicted, no partition moves
	deletion = "deletion" // Leases are deleted by hand, while their members are cut off or paused
	restored = "restored" // the database is restored after a long outage
	replaced = "replaced" // Pods are force-deleted while their processes work, and others of the same names start
	crowd    = "crowd"    // many members, most of which die at once
	slow     = "slow"     // the API server needs seconds for each request, while members join, leave and crash
	oneWay   = "one way"  // nothing but lost responses of writes: no member stops, no partition moves
)

func drawProfile(r *rand.Rand) profile {
	coin := func(p float64) bool { return r.Float64() < p }
	partitions := []int{5, 8, 16, 30}
	p := profile{
		kind: mixed, length: time.Duration(60+r.IntN(100)) * time.Second, members: 2 + r.IntN(4), most: 6,
		drift: coin(0.4), idle: r.Float64(), lag: 3 * time.Millisecond, slowCaches: 0.3,
		parameters: ring.Parameters{Key: "name", Partitions: partitions[r.IntN(4)], VirtualNodes: 1 + r.IntN(20), Load: 1.25},
	}
	p.next = p.parameters
	if coin(0.2) {
		p.lag = time.Duration(r.Int64N(int64(2 * time.Second)))
	}
	switch x := r.Float64(); {
	case x < 0.06:
		p.kind = outages
		p.faults = []fault{{"outage", 40 * time.Second, outage}}
		return p
	case x < 0.16:
		p.kind = deletion
		p.members, p.quarantine, p.lag = 3+r.IntN(3), coin(0.3), 3*time.Millisecond
		p.faults = []fault{faultOf("delete")}
		return p
	case x < 0.26:
		p.kind = restored
		p.faults = []fault{faultOf("restore"), {"join", 15 * time.Second, join}, {"leave", 20 * time.Second, leave}}
	case x < 0.36:
		p.kind = replaced
		p.lag = 3 * time.Millisecond
		p.faults = []fault{faultOf("replace")}
		for _, f := range everyFault {
			switch f.name {
			case "crash", "leave", "join", "pause", "bad network", "disturb writes":
				if coin(0.5) {
					p.faults = append(p.faults, f)
				}
			}
		}
	case x < 0.41:
		p.kind, p.limited, p.drift, p.lag = crowd, coin(0.5), false, 3*time.Millisecond
		p.members = 10 + r.IntN(25)
		p.parameters.Partitions = 60
		p.next = p.parameters
		p.length = 80 * time.Second
	case x < 0.45:
		p.kind, p.drift, p.lag = slow, false, 3*time.Millisecond
		p.trip = []time.Duration{2500 * time.Millisecond, 3500 * time.Millisecond, 4 * time.Second}[r.IntN(3)]
		p.length += time.Minute
		p.faults = []fault{{"join", 25 * time.Second, join}, {"leave", 30 * time.Second, leave}, {"crash", 40 * time.Second, crash}}
		return p
	case x < 0.49:
		p.kind, p.lag = oneWay, 3*time.Millisecond
		p.length += time.Minute
		p.faults = []fault{{"lose responses", 20 * time.Second, loseResponses}}
		return p
	}
	if p.kind == crowd {
		return p
	}
	if coin(0.4) {
		p.slowWork = r.Float64() / 4
	}
	if coin(0.5) {
		p.hooks = 0.01 * r.Float64()
	}
	p.quarantine = coin(0.1)
	p.freezes = coin(0.5)
	if coin(0.2) {
		p.otherPace = 0.5
	}
	if coin(0.3) {
		p.switchAt = p.length / 4
		switch r.IntN(4) {
		case 0:
			p.next.Key = "namespace"
		case 1:
			p.next.VirtualNodes += 7
		default:
			p.next.Partitions = partitions[r.IntN(4)] + 1
		}
		p.faults = append(p.faults, faultOf("roll"))
	}
	pace := 0.5 + 2*r.Float64() // faults are frequent, or leave time to recover between them
	for _, f := range everyFault {
		if p.kind == mixed && coin(0.5) && !(f.name == "jump" && p.freezes) {
			// The wall clock detects a pause with a frozen monotonic clock, unless it is turned
			// back, too.
			f.every = time.Duration(float64(f.every) * pace)
			p.faults = append(p.faults, f)
		}
	}
	return p
}

// insistOn lets a pair of faults happen first. A fault that is safe only in a quiet fleet meets
// only the other one.
func (p *profile) insistOn(pair pair, r *rand.Rand) {
	if p.kind == outages || p.kind == oneWay || p.kind == slow {
		return // they check that nothing else happens
	}
	p.pair = pair
	for _, kind := range pair {
		switch kind {
		case "delete", "restore", "replace":
			p.faults, p.hooks, p.members = nil, 0, max(p.members, 3)
		case "mass death":
			p.faults, p.hooks, p.members = nil, 0, max(p.members, 10+r.IntN(25))
			p.most = p.members + 2
		case "jump":
			p.freezes = false
		case "roll":
			p.switchAt = time.Second
			if p.next == p.parameters {
				p.next.VirtualNodes += 7
			}
		case "drift":
			p.drift = true
		case "late watch":
			p.lag = max(p.lag, 200*time.Millisecond+time.Duration(r.Int64N(int64(2*time.Second))))
		case "limiter":
			p.limited = true
		case "mixed durations":
			p.otherPace = 0.5
		case "slow cache":
			p.slowCaches = 1
		case "slow work":
			p.slowWork = max(p.slowWork, 0.1)
		}
	}
}

// rareFaults are those that need a quiet fleet.
var rareFaults = []fault{
	{"delete", 25 * time.Second, deleteLease},
	{"restore", 45 * time.Second, restore},
	{"replace", 15 * time.Second, replaceByForce},
	{"mass death", 0, massDeath},
	{"roll", 15 * time.Second, roll},
}

var everyFault = []fault{
	{"crash", 20 * time.Second, crash},
	{"pause", 8 * time.Second, pause},
	{"leave", 15 * time.Second, leave},
	{"join", 12 * time.Second, join},
	{"bad network", 8 * time.Second, badNetwork},
	{"cut", 15 * time.Second, cut},
	{"disturb writes", 4 * time.Second, disturbWrites},
	{"stall", 12 * time.Second, stall},
	{"rewatch", 15 * time.Second, rewatch},
	{"outage", 50 * time.Second, outage},
	{"storm", 25 * time.Second, storm},
	{"edit", 12 * time.Second, edit},
	{"fight", 20 * time.Second, startFight},
	{"jump", 15 * time.Second, jump},
	{"duplicate", 30 * time.Second, duplicate},
	{"lose responses", 20 * time.Second, loseResponses},
	{"slow", 20 * time.Second, slowServer},
	{"collect", 40 * time.Second, collectDead},
}

func (p profile) parametersAt(w *sim) ring.Parameters {
	if p.switchAt > 0 && w.now >= p.switchAt {
		return p.next
	}
	return p.parameters
}
