// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
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
	lookAt   = flag.String("object", "", "with -seed: tell what happens to this object, namespace/name")
	onlySeed = flag.Uint64("seed", 0, "run TestFaults with this seed only")

	stopAtFirst = flag.Bool("stop-at-first", false, "let TestFaults skip the seeds that follow one that fails")
)

// TestFaults is a fleet under changes of members, crashes, pauses in the middle of
// work, loops that are blocked while work runs, unreachable and silent API servers, lost answers, dead watches, second
// processes of one Pod and deleted Leases, with objects that change all the time. At
// no time may two work on one object or write to it, and at the end each must have been
// worked on at its last version.
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

// faults runs one seed and returns what has gone wrong.
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
			f.strike()
			f.change(40)
			time.Sleep(time.Duration(f.rand.IntN(10_000)) * time.Millisecond)
			if len(f.failed()) > 0 {
				break
			}
		}
		if len(f.failed()) == 0 {
			f.calm()
		}
		if len(f.failed()) == 0 {
			for _, name := range slices.Sorted(maps.Keys(f.replicas)) {
				f.endAtWork(name)
			}
		}
		f.close()
		problems = f.failed()
	})
	return problems
}

const objectCount = 150

// change changes some objects.
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

// anyone returns the name of a process.
func (f *fleet) anyone() string {
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

// strike lets one thing happen.
func (f *fleet) strike() {
	who := f.anyone()
	r := f.replicas[who]
	few, many := len(f.replicas) <= 2, len(f.replicas) >= 5
	switch kind := f.rand.IntN(19); {
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
		f.trace("lost answers %s", who)
		f.cluster.Break(who, shardtest.LostAnswer)
	case kind == 6:
		f.trace("dead watch %s", who)
		f.cluster.Mend(who)
	case kind == 7:
		f.trace("dead wire %s", who)
		r.wire.set(true, 0)
	case kind == 8:
		f.trace("slow wire %s", who)
		r.wire.set(false, 2*time.Second)
	case kind == 9:
		f.trace("heal all")
		f.heal()
	case kind == 10:
		f.trace("delete the Lease of %s", who)
		f.cluster.Remove(namespace, "foo-"+r.PodName())
		f.change(80) // while work that does not listen keeps it from joining again
	case kind <= 12:
		pause := []time.Duration{5, 11, 20, 40}[f.rand.IntN(4)] * time.Second
		f.trace("pause %s for %v", who, pause)
		r.frozen = r.frozen || pause >= 20*time.Second
		r.pause()
		time.AfterFunc(pause, r.goOn)
	case kind == 13 && !few:
		f.trace("crash %s", who)
		f.cluster.Break(who, shardtest.Unreachable)
		r.pause()
		delete(f.replicas, who)
		f.crashed = append(f.crashed, r)
	case kind == 14:
		f.twin(r)
	case kind == 15:
		d := []time.Duration{5, 11, 20, 40}[f.rand.IntN(4)] * time.Second
		f.trace("block the loop of %s for %v", who, d)
		r.frozen = r.frozen || d >= 20*time.Second
		r.block(d)
	case kind == 16:
		f.replace(who)
	case kind >= 17:
		f.purge()
	}
}

// heal ends all faults but the pauses.
func (f *fleet) heal() {
	for name, r := range f.replicas {
		r.wire.set(false, 0)
		f.cluster.Break(name, shardtest.None)
	}
}

// twin starts a second process with the identity of another, for a while.
func (f *fleet) twin(r *replica) {
	name := fmt.Sprintf("%s-twin-%d", r.name, f.next)
	f.next++
	f.trace("second process of %s", r.name)
	f.start(name, r.PodName(), r.uid, f.slowness())
	f.change(200)
	time.Sleep(time.Duration(f.rand.IntN(10)) * time.Second)
	f.end(name)
}

// replace deletes a StatefulSet's Pod by force while its process, cut off, works on:
// another process of the same name, in another Pod, has watched the Lease that the
// garbage collector then deletes. No process may join that does not know that Lease.
func (f *fleet) replace(who string) {
	f.heal()
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
	f.end(who) // the node is back, and ends what is left of the Pod
}

// purge deletes all Leases while one member, which works on, can't hear of it. What
// it claims is safe with what the others remember, so that nobody new may join.
func (f *fleet) purge() {
	f.heal()
	time.Sleep(15 * time.Second)
	who := f.anyone()
	f.trace("delete all Leases, with %s cut off", who)
	f.cluster.Break(who, shardtest.Unreachable)
	f.change(80)
	all, order := f.cluster.Leases(namespace), f.rand.IntN(2)
	f.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for n, l := range all { // its own last, or in any order
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

// calm ends the faults and judges what is there then.
func (f *fleet) calm() {
	f.trace("end of the faults")
	f.heal()
	time.Sleep(100 * time.Second)
	for name, r := range f.replicas {
		select {
		case <-r.done:
			f.trace("%s has ended: %v", name, r.err)
			if r.err == nil {
				f.problem("%s: Run has returned, unasked", name)
			}
			f.end(name)
		default:
		}
	}
	for len(f.replicas) < 2 {
		f.join()
	}
	f.cluster.Remove(namespace, "foo-"+f.replicas[f.anyone()].PodName())
	f.change(80)
	time.Sleep(20 * time.Second)
	for name := range f.replicas { // all are fenced, and go on with what they have
		f.cluster.Break(name, shardtest.Unreachable)
	}
	time.Sleep(9 * time.Second)
	f.change(160)
	f.heal()
	f.settle()
	for range 3 { // members take back what they were about to release
		who := f.join()
		for try := 0; f.replicas[who].Ready() != nil && try < 1000; try++ {
			f.change(10)
		}
		f.change(20)
		f.end(who)
	}
	f.settle()

	for name, r := range f.replicas {
		if err := r.Ready(); err != nil {
			f.problem("%s is not ready: %v", name, err)
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
		f.problem("only %d pieces of work and %d writes: the run proves nothing", f.x.Total(), f.server.writes())
	}
}

// settle waits until everything must have been worked on.
func (f *fleet) settle() {
	time.Sleep(time.Minute)
	versions := f.versions()
	if lost := f.x.Lost(versions); len(lost) > 0 {
		f.problem("%d objects were not worked on at their last version, the first is %s, %s", len(lost), lost[0], versions[lost[0]])
	}
}

// close ends everything.
func (f *fleet) close() {
	for _, name := range slices.Sorted(maps.Keys(f.replicas)) {
		f.end(name)
	}
	for _, r := range f.crashed {
		f.bury(r)
	}
	f.server.pending.Wait()
	f.objects.source.Shutdown()
}
