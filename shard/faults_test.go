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
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
	for seed := first; seed < first+uint64(n); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			if *stopAtFirst && failed.Load() {
				t.Skip("an earlier seed has failed")
			}
			problems := faults(t, seed)
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

// faults runs one seed and returns the problems that it found.
func faults(t *testing.T, seed uint64) (problems []string) {
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
		for range 30 {
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
		problems = f.failed()
	})
	return problems
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

// injectFault causes one random fault or change of members.
func (f *fleet) injectFault() {
	who := f.anyReplica()
	r := f.replicas[who]
	few, many := len(f.replicas) <= 2, len(f.replicas) >= 5
	switch kind := f.rand.IntN(22); {
	case kind <= 1 && !many:
		f.trace("join %s", f.join())
	case kind == 2 && !many:
		who = f.join()
		f.trace("join and stop %s", who)
		time.Sleep(time.Duration(f.rand.IntN(4000)) * time.Millisecond)
		f.end(who)
	case kind == 3 && !few:
		f.trace("stop %s", who)
		f.end(who)
	case kind == 4:
		f.trace("unreachable %s", who)
		f.cluster.Break(who, shardtest.Unreachable)
	case kind == 5:
		f.trace("lost responses %s", who)
		f.cluster.Break(who, shardtest.LostAnswer)
	case kind == 6:
		f.trace("dead watch %s", who)
		f.cluster.ClearFault(who)
	case kind == 7:
		f.trace("silent API server %s", who)
		r.client.set(true, 0)
	case kind == 8:
		f.trace("slow API server %s", who)
		r.client.set(false, 2*time.Second)
	case kind == 9:
		f.trace("clear all faults")
		f.clearFaults()
	case kind == 10:
		f.trace("delete the Lease of %s", who)
		f.cluster.Remove(namespace, "foo-"+r.PodName())
		f.change(80) // work that ignores its context delays the rejoin
	case kind <= 12:
		pause := []time.Duration{5, 11, 20, 40}[f.rand.IntN(4)] * time.Second
		f.trace("pause %s for %v", who, pause)
		r.frozen = r.frozen || pause >= 20*time.Second
		r.pause()
		time.AfterFunc(pause, r.unpause)
	case kind == 13 && !few:
		f.trace("crash %s", who)
		f.cluster.Break(who, shardtest.Unreachable)
		r.pause()
		delete(f.replicas, who)
		f.crashed = append(f.crashed, r)
	case kind == 14:
		f.startDuplicate(r)
	case kind == 15:
		d := []time.Duration{5, 11, 20, 40}[f.rand.IntN(4)] * time.Second
		f.trace("block the loop of %s for %v", who, d)
		r.frozen = r.frozen || d >= 20*time.Second
		r.block(d)
	case kind == 16:
		f.replace(who)
	case kind <= 18:
		f.deleteAllLeases()
	case kind == 19:
		f.floodWithReaders(who)
	case kind == 20:
		f.trace("transport of %s ignores contexts", who)
		r.client.ignoreContexts()
	case kind == 21 && r.Ready() == nil: // a process that has never joined ends
		f.trace("403 for %s", who)
		r.client.refuse()
	}
}

// clearFaults ends all faults except the pauses.
func (f *fleet) clearFaults() {
	for name, r := range f.replicas {
		r.client.set(false, 0)
		f.cluster.Break(name, shardtest.None)
	}
}

// startDuplicate runs a second process with the identity of another one for a while.
func (f *fleet) startDuplicate(r *replica) {
	name := fmt.Sprintf("%s-duplicate-%d", r.name, f.next)
	f.next++
	f.trace("second process of %s", r.name)
	f.start(name, r.PodName(), r.uid, f.slowness())
	f.change(200)
	time.Sleep(time.Duration(f.rand.IntN(10)) * time.Second)
	f.end(name)
}

// replace force-deletes a Pod of a StatefulSet while its process is cut off and continues
// to work. Another process with the same name, in another Pod, has watched the Lease that
// the garbage collector then deletes. No process that does not know that Lease may join.
func (f *fleet) replace(who string) {
	f.clearFaults()
	time.Sleep(15 * time.Second)
	old := f.replicas[who]
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
}

// floodWithReaders reads the state of a member's loop without a pause. The member must not
// be fenced by that.
func (f *fleet) floodWithReaders(who string) {
	f.clearFaults()
	time.Sleep(15 * time.Second)
	r := f.replicas[who]
	if r.Ready() != nil {
		return
	}
	f.trace("many readers of %s", who)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	go flood(ctx, r.Sharder, time.Duration(1+f.rand.IntN(20))*time.Millisecond)
	for ctx.Err() == nil {
		f.change(5)
		time.Sleep(100 * time.Millisecond)
		if r.Fenced() {
			f.problem("%s is fenced because its state is read all the time", who)
			return
		}
	}
}

// deleteAllLeases deletes all Leases while one member is cut off, does not learn of it and continues
// to work. Its claims are protected only by what the other members remember, so no new
// member may join.
func (f *fleet) deleteAllLeases() {
	f.clearFaults()
	time.Sleep(15 * time.Second)
	who := f.anyReplica()
	f.trace("delete all Leases, with %s cut off", who)
	f.cluster.Break(who, shardtest.Unreachable)
	f.change(80)
	all, order := f.cluster.Leases(namespace), f.rand.IntN(2)
	f.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for n, l := range all { // the Lease of the member that is cut off last, or any order
		if l.Name == "foo-"+f.replicas[who].PodName() && order == 0 {
			all[n], all[len(all)-1] = all[len(all)-1], all[n]
		}
	}
	for _, l := range all {
		f.cluster.Remove(namespace, l.Name)
		time.Sleep(time.Duration(f.rand.IntN(200)) * time.Millisecond)
	}
	f.change(200)
	time.Sleep(20 * time.Second)
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
