// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

var (
	seeds    = flag.Int("seeds", 4, "seeds of TestFaults to run")
	lookAt   = flag.String("object", "", "with -seed: log what happens to this object, namespace/name")
	onlySeed = flag.Uint64("seed", 0, "run TestFaults with this seed only")

	stopAtFirst = flag.Bool("stop-at-first", false, "let TestFaults skip the seeds that follow one that fails")
)

// TestFaults runs a fleet under changes of members, crashes, pauses in the middle of
// work, loops that are blocked while work runs, unreachable and silent API servers, lost
// responses, transports that ignore contexts, refused requests, dead watches, second processes of one Pod,
// deleted Leases and floods of readers, with objects that change all the time. At no time
// may two members work on one object or write to it. At the end the last version of each
// object must have been worked on.
func TestFaults(t *testing.T) {
	first, n := uint64(1), *seeds
	if *onlySeed != 0 {
		first, n = *onlySeed, 1
	}
	var failed atomic.Bool
	var mu sync.Mutex
	all := map[[2]string]bool{} // pairs of faults that met
	t.Cleanup(func() { reportPairs(t, all, n) })
	for seed := first; seed < first+uint64(n); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			if *stopAtFirst && failed.Load() {
				t.Skip("an earlier seed has failed")
			}
			problems, met := faults(t, seed)
			mu.Lock()
			maps.Copy(all, met)
			mu.Unlock()
			for _, p := range problems[:min(5, len(problems))] {
				t.Error(p)
			}
			if len(problems) > 0 {
				failed.Store(true)
				t.Errorf("%d problems; replay with: go test ./shard -run 'TestFaults' -seed=%d -v", len(problems), seed)
			}
		})
	}
}

// enoughForPairs is a number of seeds in which all pairs of faults must meet.
const enoughForPairs = 300

func reportPairs(t *testing.T, met map[[2]string]bool, seeds int) {
	var missing []string
	for i, a := range fleetFaults {
		for _, b := range fleetFaults[:i+1] {
			if pair := [2]string{min(a.name, b.name), max(a.name, b.name)}; !met[pair] {
				missing = append(missing, fmt.Sprint(pair))
			}
		}
	}
	t.Logf("pairs of faults that met: %d, missing: %d", len(met), len(missing))
	if seeds >= enoughForPairs && len(missing) > 0 && !t.Failed() {
		t.Errorf("pairs of faults that did not meet in %d seeds: %q", seeds, missing)
	}
}

// faults runs one seed and returns the problems that it found, and the pairs of faults that met.
func faults(t *testing.T, seed uint64) (problems []string, met map[[2]string]bool) {
	synctest.Test(t, func(t *testing.T) {
		trace := func(string, ...any) {}
		if *onlySeed != 0 {
			trace = func(format string, args ...any) { t.Logf(time.Now().Format("15:04:05.000 ")+format, args...) }
		}
		f := newFleet(seed, trace)
		for i := range objectCount {
			f.objects.write(objectName(i))
		}
		for range 3 {
			f.join()
		}
		f.injectPair(seed)
		for range 29 {
			f.change(40)
			f.injectFault()
			f.change(40)
			time.Sleep(time.Duration(f.rand.IntN(10_000)) * time.Millisecond)
			if len(f.failed()) > 0 {
				break
			}
		}
		if len(f.failed()) == 0 {
			f.checkConverged()
		}
		if len(f.failed()) == 0 {
			for _, name := range slices.Sorted(maps.Keys(f.replicas)) {
				f.endAtWork(name)
			}
		}
		f.close()
		time.Sleep(time.Minute) // requests that ignored the end of their contexts end: see ignoreContexts
		problems, met = f.failed(), f.pairs()
	})
	return problems, met
}

const objectCount = 150

// change updates some objects.
func (f *fleet) change(most int) {
	for range f.rand.IntN(most) {
		name := objectName(f.rand.IntN(objectCount))
		f.note("default/"+name, "changes")
		if f.rand.IntN(10) == 0 {
			f.objects.remove(name)
		} else {
			f.objects.write(name)
		}
		time.Sleep(time.Duration(f.rand.IntN(50)) * time.Millisecond)
	}
}

// anyReplica returns the name of a random process.
func (f *fleet) anyReplica() string {
	names := slices.Sorted(maps.Keys(f.replicas))
	return names[f.rand.IntN(len(names))]
}

func (f *fleet) join() string {
	pod := fmt.Sprintf("op-%d", f.next)
	f.next++
	f.start(pod, pod, pod, f.slowness())
	return pod
}

func (f *fleet) slowness() time.Duration {
	return time.Duration(1+f.rand.IntN(1000)) * time.Millisecond
}

// fleetFault is a fault or a change of members. do returns false if it is not possible now.
type fleetFault struct {
	name  string
	lasts bool // until the faults are cleared
	do    func(f *fleet, r *replica) bool
}

var fleetFaults = []fleetFault{
	{"join", false, func(f *fleet, _ *replica) bool { return len(f.replicas) < 5 && f.join() != "" }},
	{"join and stop", false, func(f *fleet, _ *replica) bool {
		if len(f.replicas) >= 5 {
			return false
		}
		who := f.join()
		time.Sleep(time.Duration(f.rand.IntN(4000)) * time.Millisecond)
		f.end(who)
		return true
	}},
	{"stop", false, func(f *fleet, r *replica) bool {
		if len(f.replicas) <= 2 {
			return false
		}
		f.end(r.name)
		return true
	}},
	{"unreachable", true, func(f *fleet, r *replica) bool { return f.breakConnection(r, shardtest.Unreachable) }},
	{"lost responses", true, func(f *fleet, r *replica) bool { return f.breakConnection(r, shardtest.LostAnswer) }},
	{"dead watch", false, func(f *fleet, r *replica) bool {
		f.cluster.ClearFault(r.name)
		return true
	}},
	{"silent API server", true, func(_ *fleet, r *replica) bool {
		r.client.set(true, 0)
		return true
	}},
	{"slow API server", true, func(_ *fleet, r *replica) bool {
		r.client.set(false, 2*time.Second)
		return true
	}},
	{"Lease deleted", false, func(f *fleet, r *replica) bool {
		f.cluster.Remove(namespace, "foo-"+r.PodName())
		f.change(80) // work that ignores its context delays the rejoin
		return true
	}},
	{"pause", false, func(f *fleet, r *replica) bool {
		d := f.stillness(r)
		r.pause()
		time.AfterFunc(d, r.unpause)
		return true
	}},
	{"crash", false, func(f *fleet, r *replica) bool {
		if len(f.replicas) <= 2 {
			return false
		}
		f.cluster.Break(r.name, shardtest.Unreachable)
		r.pause()
		delete(f.replicas, r.name)
		f.crashed = append(f.crashed, r)
		return true
	}},
	{"second process", false, (*fleet).startDuplicate},
	{"blocked loop", false, func(f *fleet, r *replica) bool {
		r.block(f.stillness(r))
		return true
	}},
	{"replaced Pod", false, (*fleet).replace},
	{"all Leases deleted", false, (*fleet).deleteAllLeases},
	{"readers", false, (*fleet).floodWithReaders},
	{"ignored contexts", true, func(_ *fleet, r *replica) bool {
		r.client.ignoreContexts()
		return true
	}},
	{"403", true, func(_ *fleet, r *replica) bool {
		if r.Ready() != nil { // a process that has never joined ends
			return false
		}
		r.client.refuse()
		return true
	}},
}

// injectFault causes one random fault or change of members, or clears the faults.
func (f *fleet) injectFault() {
	if kind := f.rand.IntN(len(fleetFaults) + 2); kind < len(fleetFaults) {
		f.inject(fleetFaults[kind])
		return
	}
	f.trace("clear all faults")
	f.clearFaults()
}

// inject causes a fault on a random process, and records when.
func (f *fleet) inject(fault fleetFault) {
	r := f.replicas[f.anyReplica()]
	f.trace("%s %s", fault.name, r.name)
	began := time.Now()
	if !fault.do(f, r) {
		return
	}
	f.spans = append(f.spans, span{fault.name, began, time.Now(), fault.lasts})
}

// span is the time in which a fault had an effect.
type span struct {
	kind     string
	from, to time.Time
	lasts    bool // to is not known yet
}

// pairs returns the pairs of faults that overlapped or followed each other within one lease
// duration, in the order of their names.
func (f *fleet) pairs() map[[2]string]bool {
	met := map[[2]string]bool{}
	for i, b := range f.spans {
		for _, a := range f.spans[:i] {
			if a.lasts || b.from.Sub(a.to) <= shard.DefaultLeaseDuration {
				met[[2]string{min(a.kind, b.kind), max(a.kind, b.kind)}] = true
			}
		}
	}
	return met
}

// pairOfSeed returns two faults for a seed to begin with.
func pairOfSeed(seed uint64) (a, b fleetFault) {
	n := int(seed) % (len(fleetFaults) * (len(fleetFaults) + 1) / 2)
	for i := range fleetFaults {
		if n <= i {
			return fleetFaults[i], fleetFaults[n]
		}
		n -= i + 1
	}
	panic("unreachable")
}

// injectPair causes the pair of a seed, before any other fault.
func (f *fleet) injectPair(seed uint64) {
	a, b := pairOfSeed(seed)
	f.join()
	time.Sleep(10 * time.Second) // until all are ready
	if f.rand.IntN(2) == 0 {
		a, b = b, a
	}
	f.inject(a)
	time.Sleep(time.Duration(f.rand.IntN(5000)) * time.Millisecond)
	f.inject(b)
	f.change(40)
}

func (f *fleet) breakConnection(r *replica, how shardtest.Fault) bool {
	f.cluster.Break(r.name, how)
	return true
}

// stillness returns for how long a process is paused or blocked.
func (f *fleet) stillness(r *replica) time.Duration {
	d := []time.Duration{5, 11, 20, 40}[f.rand.IntN(4)] * time.Second
	f.trace("for %v", d)
	r.frozen = r.frozen || d >= 20*time.Second
	return d
}

// clearFaults ends all faults except the pauses.
func (f *fleet) clearFaults() {
	for i := range f.spans {
		if s := &f.spans[i]; s.lasts {
			s.lasts, s.to = false, time.Now()
		}
	}
	for name, r := range f.replicas {
		r.client.set(false, 0)
		f.cluster.Break(name, shardtest.None)
	}
}

// startDuplicate runs a second process with the identity of another one for a while.
func (f *fleet) startDuplicate(r *replica) bool {
	name := fmt.Sprintf("%s-duplicate-%d", r.name, f.next)
	f.next++
	f.start(name, r.PodName(), r.uid, f.slowness())
	f.change(200)
	time.Sleep(time.Duration(f.rand.IntN(10)) * time.Second)
	f.end(name)
	return true
}

// replace force-deletes a Pod of a StatefulSet while its process is cut off and continues
// to work. Another process with the same name, in another Pod, has watched the Lease that
// the garbage collector then deletes. No process that does not know that Lease may join.
func (f *fleet) replace(old *replica) bool {
	f.clearFaults()
	time.Sleep(15 * time.Second)
	who := old.name
	name := fmt.Sprintf("%s-again-%d", old.PodName(), f.next)
	f.next++
	f.trace("replace %s by %s", who, name)
	f.start(name, old.PodName(), name, f.slowness())
	f.change(80)
	time.Sleep(time.Second)
	f.cluster.Break(who, shardtest.Unreachable)
	time.Sleep(time.Duration(f.rand.IntN(3000)) * time.Millisecond)
	f.cluster.Remove(namespace, "foo-"+old.PodName())
	f.change(200)
	time.Sleep(20 * time.Second)
	f.end(who) // the node is back, and terminates the containers of the Pod
	return true
}

// floodWithReaders reads the state of a member's loop without a pause. The member must not
// be fenced by that.
func (f *fleet) floodWithReaders(r *replica) bool {
	f.clearFaults()
	time.Sleep(15 * time.Second)
	if r.Ready() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	go flood(ctx, r.Sharder, time.Duration(1+f.rand.IntN(20))*time.Millisecond)
	for ctx.Err() == nil {
		f.change(5)
		time.Sleep(100 * time.Millisecond)
		if r.Fenced() {
			f.problem("%s is fenced because its state is read all the time", r.name)
			return true
		}
	}
	return true
}

// deleteAllLeases deletes all Leases while one member is cut off, does not learn of it and continues
// to work. Its claims are protected only by what the other members remember, so no new
// member may join.
func (f *fleet) deleteAllLeases(cutOff *replica) bool {
	f.clearFaults()
	time.Sleep(15 * time.Second)
	f.cluster.Break(cutOff.name, shardtest.Unreachable)
	f.change(80)
	all, order := f.cluster.Leases(namespace), f.rand.IntN(2)
	f.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for n, l := range all { // the Lease of the member that is cut off last, or any order
		if l.Name == "foo-"+cutOff.PodName() && order == 0 {
			all[n], all[len(all)-1] = all[len(all)-1], all[n]
		}
	}
	for _, l := range all {
		f.cluster.Remove(namespace, l.Name)
		time.Sleep(time.Duration(f.rand.IntN(200)) * time.Millisecond)
	}
	f.change(200)
	time.Sleep(20 * time.Second)
	return true
}

// checkConverged ends the faults and checks that the fleet recovers.
func (f *fleet) checkConverged() {
	f.trace("end of the faults")
	f.clearFaults()
	time.Sleep(100 * time.Second)
	for name, r := range f.replicas {
		select {
		case <-r.done:
			f.trace("%s has ended: %v", name, r.err)
			if r.err == nil {
				f.problem("%s: Run returned nil although its context has not ended", name)
			}
			f.end(name)
		default:
		}
	}
	for len(f.replicas) < 2 {
		f.join()
	}
	f.cluster.Remove(namespace, "foo-"+f.replicas[f.anyReplica()].PodName())
	f.change(80)
	time.Sleep(20 * time.Second)
	for name := range f.replicas { // all are fenced, and then resume what they have
		f.cluster.Break(name, shardtest.Unreachable)
	}
	time.Sleep(9 * time.Second)
	f.change(160)
	f.clearFaults()
	f.settle()
	for range 3 { // members keep partitions that they were about to release
		who := f.join()
		for try := 0; f.replicas[who].Ready() != nil && try < 1000; try++ {
			f.change(10)
		}
		f.change(20)
		f.end(who)
	}
	f.settle()

	for name, r := range f.replicas {
		if err := errors.Join(r.Ready(), r.Healthy()); err != nil {
			f.problem("%s is not ready or not healthy: %v", name, err)
		}
	}
	for i := range 1000 {
		key, who := fmt.Sprint("default/foo-", i), []string{}
		for name, r := range f.replicas {
			if r.OwnsKey(key) && !r.Fenced() {
				who = append(who, name)
			}
		}
		if len(who) != 1 {
			f.problem("%s is owned by %q", key, who)
			break
		}
	}
	if f.x.Total() < objectCount || f.server.writes() < objectCount/4 {
		f.problem("only %d pieces of work and %d writes: too few for the run to prove anything", f.x.Total(), f.server.writes())
	}
}

// settle waits until every object must have been worked on, and checks it. Work that has begun
// before may take 45 s, and its item may be waiting to be worked on again.
func (f *fleet) settle() {
	f.settling.Store(true)
	defer f.settling.Store(false)
	time.Sleep(time.Minute)
	versions := f.versions()
	if lost := f.x.Lost(versions); len(lost) > 0 {
		f.problem("%d objects were not worked on at their last version, the first is %s, %s", len(lost), lost[0], versions[lost[0]])
	}
}

// close stops all processes.
func (f *fleet) close() {
	for _, name := range slices.Sorted(maps.Keys(f.replicas)) {
		f.end(name)
	}
	for _, r := range f.crashed {
		f.awaitEnd(r)
	}
	f.server.pending.Wait()
	time.Sleep(deafness) // for the requests that have ignored their contexts
}
