// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// fleet generates a run of replicas that join and leave, with the records that they
// would have written. It does not model the library; it is only realistic enough to
// look at.
type fleet struct {
	random     *rand.Rand
	now        int64
	partitions int
	processes  []*worklog.Process
	live       []*worklog.Process
	owner      []*worklog.Process // by partition
	faults     []Fault
	free       []string // Pods that are not running
}

const origin = int64(50 * time.Second)

// recorded is a run and what its report was made of.
type recorded struct {
	Run
	processes []worklog.Process
}

// randomRun generates evenly spread membership changes.
func randomRun(seed uint64, partitions, pods, changes int, length time.Duration) recorded {
	f := &fleet{random: rand.New(rand.NewPCG(seed, 1)), now: origin, partitions: partitions, owner: make([]*worklog.Process, partitions)}
	for i := range pods {
		f.free = append(f.free, fmt.Sprintf("op-%d", i))
	}
	for range (pods + 1) / 2 {
		f.start()
		f.pass(20 * time.Millisecond)
	}
	for i := range changes {
		f.pass(time.Duration(float64(length) / float64(changes+1) * (0.6 + 0.8*f.random.Float64())))
		f.work()
		switch kind := f.random.IntN(10); {
		case i == changes/2:
			f.outage(length / 30)
		case len(f.free) > 0 && (kind < 5 || len(f.live) < 2):
			f.start()
		case kind < 7:
			f.kill()
		case kind < 9:
			f.stop()
		default:
			f.pause(length / 60)
		}
	}
	f.pass(length / 20)
	f.work()
	run := recorded{Run: Run{Title: fmt.Sprintf("random run %d", seed), Faults: f.faults, Partitions: partitions}}
	for _, p := range f.processes {
		run.processes = append(run.processes, *p)
	}
	run.Report = worklog.Check(run.processes, worklog.Options{End: f.now})
	return run
}

func (f *fleet) pass(d time.Duration) { f.now += int64(d) }

func (f *fleet) record(p *worklog.Process, e worklog.Event, partitions ...int) {
	f.now += 1000 + f.random.Int64N(500_000)
	p.Records = append(p.Records, worklog.Record{Time: f.now, Event: e, Member: member(p), Partitions: partitions})
}

func member(p *worklog.Process) string { return podOf(p) + "_" + p.Name[len(p.Name)-3:] }
func podOf(p *worklog.Process) string  { return p.Name[:len(p.Name)-4] }

func (f *fleet) start() {
	name := f.free[0]
	f.free = f.free[1:]
	p := &worklog.Process{Name: fmt.Sprintf("%s.%03d", name, len(f.processes)+1)}
	f.processes, f.live = append(f.processes, p), append(f.live, p)
	f.pass(300 * time.Millisecond)
	f.record(p, worklog.Join)
	f.settle()
}

func (f *fleet) pick() *worklog.Process { return f.live[f.random.IntN(len(f.live))] }

func (f *fleet) remove(p *worklog.Process) {
	f.live = slices.DeleteFunc(f.live, func(q *worklog.Process) bool { return p == q })
	f.free = append(f.free, podOf(p))
}

func (f *fleet) kill() {
	p := f.pick()
	f.faults = append(f.faults, Fault{Name: "SIGKILL", Target: p.Name, From: f.now})
	f.pass(time.Millisecond)
	p.Death = f.now
	f.remove(p)
	f.forget(p)
	f.pass(12 * time.Second)
	f.settle()
}

func (f *fleet) stop() {
	p := f.pick()
	f.faults = append(f.faults, Fault{Name: "SIGTERM", Target: p.Name, From: f.now, Note: "scaled in"})
	for i, q := range f.owner {
		if q == p {
			f.record(p, worklog.Release, i)
			f.owner[i] = nil
		}
	}
	f.record(p, worklog.Leave)
	f.remove(p)
	f.settle()
}

// pause pauses a process for long enough that it is evicted, and makes it join again.
func (f *fleet) pause(d time.Duration) {
	p := f.pick()
	from := f.now
	f.forget(p)
	f.live = slices.DeleteFunc(f.live, func(q *worklog.Process) bool { return p == q })
	f.pass(d * 2 / 3)
	f.settle()
	f.pass(d / 3)
	p.Pauses = append(p.Pauses, worklog.Pause{From: from, To: f.now})
	f.faults = append(f.faults, Fault{Name: "SIGSTOP", Target: p.Name, From: from, To: f.now})
	f.record(p, worklog.Fence)
	f.pass(2 * time.Second)
	f.record(p, worklog.Leave)
	f.record(p, worklog.Join)
	f.live = append(f.live, p)
	f.settle()
}

// outage fences all members; then all resume.
func (f *fleet) outage(d time.Duration) {
	from := f.now
	f.pass(d * 2 / 3)
	for _, p := range f.live {
		f.record(p, worklog.Fence)
	}
	f.pass(d / 3)
	f.faults = append(f.faults, Fault{Name: "outage", Target: "kube-apiserver", From: from, To: f.now, Note: "SIGSTOP"})
	for _, p := range f.live {
		f.record(p, worklog.Resume)
	}
}

func (f *fleet) forget(p *worklog.Process) {
	for i, q := range f.owner {
		if q == p {
			f.owner[i] = nil
		}
	}
}

// settle assigns each partition to the live process with the highest score for it.
func (f *fleet) settle() {
	gained := map[*worklog.Process][]int{}
	lost := map[*worklog.Process][]int{}
	for i, old := range f.owner {
		var best *worklog.Process
		var most uint64
		for _, p := range f.live {
			h := fnv.New64a()
			fmt.Fprintf(h, "%s/%d/%s", p.Name, i*7919, p.Name)
			if score := h.Sum64() * 0x9e3779b97f4a7c15; best == nil || score > most {
				best, most = p, score
			}
		}
		if best == old || best == nil {
			continue
		}
		if old != nil {
			lost[old] = append(lost[old], i)
		}
		gained[best] = append(gained[best], i)
		f.owner[i] = best
	}
	for _, p := range f.live {
		if len(lost[p]) > 0 {
			f.record(p, worklog.Release, lost[p]...)
		}
	}
	for _, p := range f.live {
		if len(gained[p]) > 0 {
			f.record(p, worklog.Activate, gained[p]...)
		}
	}
}

func (f *fleet) work() {
	for i, p := range f.owner {
		if p == nil || f.random.IntN(4) > 0 {
			continue
		}
		key := fmt.Sprintf("default/foo-%d", i)
		for _, e := range []worklog.Event{worklog.Start, worklog.End} {
			f.record(p, e, i)
			r := &p.Records[len(p.Records)-1]
			r.Key, r.Version = key, "1"
		}
	}
}

// withViolations adds violations to a run: two owners of a partition, and two processes
// that work on one key.
func withViolations(run recorded, at int64, d time.Duration, partition int) Run {
	p := worklog.Process{Name: "rogue.999", Records: []worklog.Record{
		{Time: at, Event: worklog.Activate, Member: "rogue_1", Partitions: []int{partition, partition + 1}},
		{Time: at + 1, Event: worklog.Start, Member: "rogue_1", Key: "default/x", Partitions: []int{partition}},
		{Time: at + 2, Event: worklog.Start, Member: "rogue_1", Key: "default/x", Partitions: []int{partition}},
		{Time: at + int64(d), Event: worklog.Release, Member: "rogue_1", Partitions: []int{partition, partition + 1}},
	}}
	run.processes = append(slices.Clone(run.processes), p)
	run.Report = worklog.Check(run.processes, worklog.Options{End: run.Report.End, Final: map[string]string{"default/lost": "7"}})
	return run.Run
}
