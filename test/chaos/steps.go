// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
	"github.com/tom-ludwig/operator-scaling/test/foos"
)

// step is a part of a fault. Steps act on the target of the fault, and leave it to the
// schedule to end what they have started. An error means that the fault could not be
// injected this time.
type step func(ctx context.Context, f *fault) error

// steps does one step after the other, until one fails.
func steps(all ...step) step {
	return func(ctx context.Context, f *fault) error {
		for _, s := range all {
			if err := s(ctx, f); err != nil {
				return err
			}
		}
		return nil
	}
}

// on does the steps with another target.
func (f *fault) on(ctx context.Context, target *replicaHarness, all ...step) error {
	other := *f
	other.target = target
	return steps(all...)(ctx, &other)
}

// onSurge does the steps on the surge replica.
func onSurge(all ...step) step {
	return func(ctx context.Context, f *fault) error { return f.on(ctx, f.surge, all...) }
}

// onEach does the steps on one replica after the other.
func onEach(all ...step) step {
	return func(ctx context.Context, f *fault) error {
		for _, r := range f.replicas {
			if err := f.on(ctx, r, all...); err != nil {
				return err
			}
		}
		return nil
	}
}

// act is a step that cannot fail.
func act(do func(f *fault)) step {
	return func(_ context.Context, f *fault) error {
		do(f)
		return nil
	}
}

// tolerate notes the error of a step that may fail under faults.
func tolerate(s step) step {
	return func(ctx context.Context, f *fault) error {
		if err := s(ctx, f); err != nil {
			f.note("%v", err)
		}
		return nil
	}
}

// Steps that wait.

func stay(d time.Duration) step { return stayBetween(d, d) }

func stayBetween(from, to time.Duration) step {
	return func(ctx context.Context, f *fault) error { return foos.Sleep(ctx, f.between(from, to)) }
}

// leases waits for a number of lease durations.
func leases(n float64) step {
	return func(ctx context.Context, f *fault) error { return foos.Sleep(ctx, f.leases(n)) }
}

func (a *environment) leases(n float64) time.Duration {
	return time.Duration(n * float64(a.options.LeaseDuration))
}

// atMostOneLease waits for a random time.
func atMostOneLease(ctx context.Context, f *fault) error {
	return foos.Sleep(ctx, f.between(0, f.leases(1)))
}

// ready waits until the process is on the ring, for at most two lease durations.
func ready(ctx context.Context, f *fault) error {
	if err := eventually(ctx, f.leases(2), func(ctx context.Context) error {
		p, err := f.target.running()
		if err != nil {
			return err
		}
		return p.Ready(ctx)
	}); err != nil {
		return fmt.Errorf("%s was not ready within %v", f.target.pod, f.leases(2))
	}
	return nil
}

// Steps for processes.

// kill kills the process; the harness restarts it.
func kill(_ context.Context, f *fault) error {
	p, err := f.target.running()
	if err == nil {
		p.Kill()
	}
	return err
}

// killPod kills the process for good, as if its node had failed.
var killPod = act(func(f *fault) {
	if p := f.target.disableRestart(); p != nil {
		p.Kill()
	}
})

func newPod(ctx context.Context, f *fault) error { return f.target.startPod(ctx) }

func restart(_ context.Context, f *fault) error {
	f.target.clearFaults()
	return f.target.start()
}

var stop = tolerate(func(_ context.Context, f *fault) error {
	began := time.Now()
	err := f.target.stop()
	f.note("%s exited after %v", f.target.pod, time.Since(began).Round(time.Millisecond))
	return err
})

// terminate sends SIGTERM and does not wait.
var terminate = tolerate(func(_ context.Context, f *fault) error { return f.target.disableRestart().Terminate() })

// exited waits for the end of a process after terminate. A second signal would end it
// immediately.
var exited = act(func(f *fault) {
	p := f.target.disableRestart()
	select {
	case <-p.Exited():
		f.note("the surge replica exited with code %d", p.ExitCode())
	case <-time.After(f.leases(1) + longestDrain):
		f.note("the surge replica did not exit")
		p.Kill()
	}
})

// stopMustFail stops a process that cannot drain.
var stopMustFail = act(func(f *fault) {
	p := f.target.disableRestart()
	_ = p.Stop() // the exit code is checked below
	f.note("exit code %d", p.ExitCode())
	if p.ExitCode() == 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.result.breach("V1", "%s was stopped during a write that did not end, and exited with code 0", p)
	}
})

// restartWith replaces the Pod by one whose process has more flags, until the fault ends.
func restartWith(flags ...string) step {
	return func(ctx context.Context, f *fault) error {
		err := f.target.stop()
		f.target.mu.Lock()
		f.target.flags = flags
		f.target.mu.Unlock()
		return errors.Join(err, f.target.startPod(ctx))
	}
}

func restartWithLongLease(ctx context.Context, f *fault) error {
	return restartWith("--lease-duration="+f.leases(2).String())(ctx, f)
}

// killMost kills all replicas but two at one moment.
func killMost(ctx context.Context, f *fault) error {
	rest, dead := f.replicas[:2], f.replicas[2:]
	for _, r := range rest {
		if err := f.on(ctx, r, restartWith("--kube-api-qps=5", "--kube-api-burst=10"), tolerate(ready)); err != nil {
			return err
		}
	}
	for _, r := range dead {
		_ = f.on(ctx, r, killPod) // cannot fail
	}
	if err := steps(leases(2.5), restartStopped)(ctx, f); err != nil {
		return err
	}
	for _, r := range rest {
		if err := f.on(ctx, r, restartWith(), tolerate(ready)); err != nil {
			return err
		}
	}
	return nil
}

// stopHalf stops half of the replicas at once.
var stopHalf = act(func(f *fault) {
	half := f.replicas[:len(f.replicas)/2]
	errs := make([]error, len(half))
	var all sync.WaitGroup
	for n, r := range half {
		all.Go(func() { errs[n] = r.stop() })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		f.note("%v", err)
	}
})

// restartStopped starts a new Pod for each replica that was stopped.
func restartStopped(ctx context.Context, f *fault) error {
	for _, r := range f.replicas {
		r.mu.Lock()
		stopped := !r.restart
		r.mu.Unlock()
		if stopped {
			if err := r.startPod(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// pauser is a process or a server.
type pauser interface {
	Pause() error
	Resume() error
}

func process(f *fault) (pauser, error)   { return f.target.running() }
func apiServer(f *fault) (pauser, error) { return f.cp.APIServer, nil }
func etcd(f *fault) (pauser, error)      { return f.cp.Etcd, nil }

// pause pauses a process or a server for a number of lease durations.
func pause(which func(*fault) (pauser, error), n float64) step {
	return func(ctx context.Context, f *fault) error {
		p, err := which(f)
		if err != nil {
			return err
		}
		if err := p.Pause(); err != nil {
			return err
		}
		f.note("for %v", f.leases(n).Round(100*time.Millisecond))
		err = foos.Sleep(ctx, f.leases(n))
		return errors.Join(err, p.Resume())
	}
}

// duplicate starts a second process with the identity of a running one, and ends one of
// the two. Meanwhile it does the steps.
func duplicate(otherPod bool, meanwhile ...step) step {
	return func(ctx context.Context, f *fault) error {
		f.target.mu.Lock()
		uid := f.target.uid
		f.target.mu.Unlock()
		if otherPod {
			uid = "00000000-0000-0000-0000-000000000000"
		}
		second, err := f.target.startProcess(uid)
		if err != nil {
			return err
		}
		defer second.Kill()
		if err := steps(leases(0.5), steps(meanwhile...), leases(0.5))(ctx, f); err != nil {
			return err
		}
		if f.draw(2) == 0 {
			f.note("the second process stops")
			if err := second.Stop(); err != nil {
				f.note("%v", err)
			}
			return nil
		}
		f.note("the first process is killed") // and a third one is started
		return steps(tolerate(kill), leases(1))(ctx, f)
	}
}

// Steps for the network.

// set sets a rule on the gateway.
func set(which faultproxy.Class, rule faultproxy.Rule) step {
	return act(func(f *fault) { f.target.gateway.Set(which, rule) })
}

// requests sets a rule on the gateway for a number of lease durations. It must have an effect.
func requests(which faultproxy.Class, rule faultproxy.Rule, n float64) step {
	return mustHit(which, rule, set(which, rule), leases(n))
}

// requestsWhileMoving sets a rule on the gateway while the surge replica joins, and again
// while it leaves. It must have an effect.
func requestsWhileMoving(which faultproxy.Class, rule faultproxy.Rule) step {
	rules := steps(set(which, rule), leases(0.5), set(which, faultproxy.Rule{}))
	// A process takes about a second to join.
	return mustHit(which, rule, onSurge(newPod), stay(500*time.Millisecond), rules, onSurge(ready, terminate), rules, onSurge(exited))
}

// mustHit fails if a rule has no effect during the steps.
func mustHit(which faultproxy.Class, rule faultproxy.Rule, all ...step) step {
	return func(ctx context.Context, f *fault) error {
		before := f.hits(which, rule)
		if err := steps(all...)(ctx, f); err != nil {
			return err
		}
		f.note("%d hit", f.hits(which, rule)-before)
		if f.hits(which, rule) == before {
			return errors.New("nothing was hit")
		}
		return nil
	}
}

func (f *fault) hits(which faultproxy.Class, rule faultproxy.Rule) int {
	return f.target.gateway.Counts().Of(which, rule.Action)
}

// hit sets a rule on the gateway, and waits until it has had an effect.
func hit(which faultproxy.Class, rule faultproxy.Rule) step {
	return func(ctx context.Context, f *fault) error {
		f.target.gateway.Set(which, rule)
		before := f.hits(which, rule) // requests in flight do not count
		for end := time.Now().Add(f.leases(1)); f.hits(which, rule) == before; {
			if time.Now().After(end) {
				return fmt.Errorf("%q had no effect on a %v within %v", rule, which, f.leases(1))
			}
			if err := foos.Sleep(ctx, 2*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
}

// surgeJoins starts the surge replica and waits until it has a Lease, so that its member is
// about to join.
func surgeJoins(ctx context.Context, f *fault) error {
	if err := f.surge.startPod(ctx); err != nil {
		return err
	}
	return eventually(ctx, f.leases(2), func(ctx context.Context) error {
		_, err := f.kube.CoordinationV1().Leases(namespace).Get(ctx, leasePrefix+f.surge.pod, metav1.GetOptions{})
		return err
	})
}

var surgeLeaves = onSurge(newPod, ready, stay(time.Second), terminate)

// crash kills the process when a rule has taken effect. Afterwards, delayed requests arrive.
func crash(which faultproxy.Class, rule faultproxy.Rule) step {
	clearFaults := act(func(f *fault) {
		f.note("killed when a %v was hit", which)
		f.target.clearFaults()
	})
	return steps(hit(which, rule), kill, stay(time.Second), clearFaults, leases(0.5), onSurge(killPod))
}

// slowWatches delays the Lease watches of the replicas with a gateway, each by a different
// time.
func slowWatches(least time.Duration) step {
	return act(func(f *fault) {
		for n, r := range f.replicas {
			if r.gateway != nil {
				r.gateway.Set(faultproxy.LeaseWatch, delayed(least+time.Duration(n)*50*time.Millisecond))
			}
		}
	})
}

// joinAndLeave makes one surge replica join while another one leaves. Its effect depends on
// timing: it repeats this until claims were contested, but not forever.
func joinAndLeave(ctx context.Context, f *fault) error {
	leaving, coming := f.surgeReplicas[0], f.surgeReplicas[1]
	err := leaving.startPod(ctx)
	before := f.counted()[contested]
	for n := 0; err == nil && (n < 4 || n < 16 && f.counted()[contested] == before); n++ {
		_ = f.on(ctx, leaving, tolerate(ready))
		if err = f.on(ctx, coming, newPod, stayBetween(100*time.Millisecond, 700*time.Millisecond)); err == nil {
			err = f.on(ctx, leaving, stop)
		}
		leaving, coming = coming, leaving
		f.ask(ctx, time.Second)
	}
	return err
}

// cable sets the state of the tunnel.
func cable(state faultproxy.Cable) step {
	return act(func(f *fault) { f.target.tunnel.Set(state) })
}

var cutCable = act(func(f *fault) { f.target.tunnel.Cut() })

// Steps for the servers.

var killAPIServer = act(func(f *fault) { f.cp.APIServer.Kill() })

func startAPIServer(ctx context.Context, f *fault) error { return f.cp.APIServer.Start(ctx) }

func outage(ctx context.Context, f *fault) error {
	f.note("for %v", f.options.Outage)
	return foos.Sleep(ctx, f.options.Outage)
}

// route routes requests to the first or the second API server.
func route(which faultproxy.Class, server int) step {
	return act(func(f *fault) {
		f.target.gateway.Route(which, server)
		f.target.gateway.Cut(which)
	})
}

// etcdCable sets the state of the connection between the second API server and etcd.
func etcdCable(state faultproxy.Cable) step {
	return act(func(f *fault) { f.etcdLine.Set(state) })
}

// stale routes requests to the second API server, then disconnects that server from etcd.
// Its watch cache becomes stale, and the server does not notice. It catches up afterwards.
func stale(which faultproxy.Class) step {
	return steps(route(which, 1), stay(time.Second), etcdCable(faultproxy.Cable{Stall: faultproxy.BothWays}), leases(2),
		etcdCable(faultproxy.Cable{}), stay(time.Second), route(which, 0))
}

// Steps for Leases.

// deleteLease deletes the Lease, as soon as the server accepts the request.
func deleteLease(ctx context.Context, f *fault) error {
	return f.retry(ctx, func(ctx context.Context) error {
		return f.kube.CoordinationV1().Leases(namespace).Delete(ctx, leasePrefix+f.target.pod, metav1.DeleteOptions{})
	})
}

// annotate sets an annotation of the Lease unconditionally, as soon as the server accepts
// the request.
func annotate(annotation, value string) step {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, annotation, value)
	return func(ctx context.Context, f *fault) error {
		return f.retry(ctx, func(ctx context.Context) error {
			_, err := f.kube.CoordinationV1().Leases(namespace).Patch(ctx, leasePrefix+f.target.pod, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			return err
		})
	}
}

// editContinuously causes conflicts for two lease durations. A member answers edits with at most
// one write per renew period (R42), so that only a fast editor meets its writes.
func editContinuously(ctx context.Context, f *fault) error {
	edits := 0
	for end := time.Now().Add(f.leases(2)); time.Now().Before(end); edits++ {
		if err := steps(annotate("example.com/edit", fmt.Sprint(edits)), stay(2*time.Millisecond))(ctx, f); err != nil {
			return err
		}
	}
	f.note("%d edits", edits)
	return nil
}
