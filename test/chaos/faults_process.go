// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
)

var processFaults = []kind{
	{"SIGKILL, restarted in its Pod", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		p, err := s.running()
		if err != nil {
			return err
		}
		p.Kill() // the harness restarts it
		return a.sleep(ctx, a.options.LeaseDuration/2)
	}},
	{"SIGKILL, comes back as another Pod", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		s.kill()
		if err := a.sleep(ctx, a.options.LeaseDuration+2*time.Second); err != nil {
			return err
		}
		return s.startPod(ctx, true)
	}},
	{"SIGKILL, another Pod at once", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		s.kill()
		if err := s.startPod(ctx, true); err != nil {
			return err
		}
		return a.sleep(ctx, a.options.LeaseDuration+2*time.Second)
	}},
	{"SIGSTOP for half the renew deadline", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return pause(ctx, a, s, i, a.options.renewDeadline()/2)
	}},
	{"SIGSTOP past the fence", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return pause(ctx, a, s, i, (a.options.renewDeadline()+a.options.LeaseDuration)/2)
	}},
	{"SIGSTOP for two lease durations", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return pause(ctx, a, s, i, 2*a.options.LeaseDuration)
	}},
	{"SIGSTOP during a reconcile, for two lease durations", aGateway, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		// Slow writes, so that one is in flight at any moment.
		s.gateway.Set(faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Delay, Delay: 500 * time.Millisecond})
		if err := a.sleep(ctx, time.Second); err != nil {
			return err
		}
		return pause(ctx, a, s, i, 2*a.options.LeaseDuration)
	}},
	{"SIGTERM, comes back as another Pod", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		began := time.Now()
		if err := s.stop(); err != nil {
			i.note("%v", err)
		}
		i.note("exited after %v", time.Since(began).Round(time.Millisecond))
		if err := a.sleep(ctx, a.between(0, a.options.LeaseDuration)); err != nil {
			return err
		}
		return s.startPod(ctx, true)
	}},
	{"rolling restart", theFleet, func(ctx context.Context, a *environment, _ *replicaHarness, i *Injection) error {
		for _, s := range a.replicas {
			if err := s.stop(); err != nil {
				i.note("%v", err)
			}
			if err := s.startPod(ctx, true); err != nil {
				return err
			}
			if err := a.waitReady(ctx, s, 2*a.options.LeaseDuration); err != nil {
				i.note("%v", err)
			}
		}
		return nil
	}},
	{"SIGTERM to half of the fleet at once", theFleet, func(ctx context.Context, a *environment, _ *replicaHarness, i *Injection) error {
		var wait sync.WaitGroup
		notes := make([]error, len(a.replicas)/2)
		for n, s := range a.replicas[:len(notes)] {
			wait.Go(func() { notes[n] = s.stop() })
		}
		wait.Wait()
		for n, s := range a.replicas[:len(notes)] {
			if notes[n] != nil {
				i.note("%v", notes[n])
			}
			if err := s.startPod(ctx, true); err != nil {
				return err
			}
		}
		return nil
	}},
	{"one more replica for a while", aSurgeReplica, func(ctx context.Context, a *environment, _ *replicaHarness, i *Injection) error {
		return a.surge(ctx, i, a.options.LeaseDuration)
	}},
	{"duplicate identity in the same Pod", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return duplicate(ctx, a, s, i, false)
	}},
	{"duplicate name in another Pod", anyReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return duplicate(ctx, a, s, i, true)
	}},
	{"slow reconciles while partitions move", aSurgeReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		s.gateway.Set(faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Delay, Delay: 2 * time.Second})
		return a.surge(ctx, i, a.options.LeaseDuration)
	}},
	// If the servers were unavailable too, the replica would be fenced, cancel the write,
	// and exit with code 0.
	{"SIGTERM during a reconcile that does not end", aReplicaAndServer, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		s.gateway.Set(faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Stall})
		if err := a.hit(ctx, s, faultproxy.ObjectWrite, faultproxy.Stall, a.options.LeaseDuration); err != nil {
			return err
		}
		p := s.disableRestart()
		err := p.Stop()
		i.note("exit code %d", p.ExitCode())
		if p.ExitCode() == 0 {
			a.breach("V1", "%s was stopped during a write that did not end, and exited with code 0", p)
		}
		if err == nil {
			i.note("no error")
		}
		s.clearFaults()
		return s.startPod(ctx, false)
	}},
}

// pause pauses a process for a while.
func pause(ctx context.Context, a *environment, s *replicaHarness, i *Injection, d time.Duration) error {
	p, err := s.running()
	if err != nil {
		return err
	}
	if err := p.Pause(); err != nil {
		return err
	}
	i.note("for %v", d.Round(100*time.Millisecond))
	err = a.sleep(ctx, d)
	if resumeErr := p.Resume(); err == nil {
		err = resumeErr
	}
	return err
}

// duplicate starts a second process with the identity of a running one, and ends one of
// the two.
func duplicate(ctx context.Context, a *environment, s *replicaHarness, i *Injection, otherPod bool) error {
	s.mu.Lock()
	uid := s.uid
	s.mu.Unlock()
	if otherPod {
		uid = "00000000-0000-0000-0000-000000000000"
	}
	second, err := a.startReplica(s.pod, uid, s.kubeconfig)
	if err != nil {
		return err
	}
	defer second.Kill()
	if err := a.sleep(ctx, a.options.LeaseDuration); err != nil {
		return err
	}
	if a.draw(2) == 0 {
		i.note("the second process stops")
		if err := second.Stop(); err != nil {
			i.note("%v", err)
		}
		return nil
	}
	i.note("the first process is killed")
	if p, err := s.running(); err == nil {
		p.Kill() // the harness restarts it, as a third process
	}
	return a.sleep(ctx, a.options.LeaseDuration)
}

// surge makes the surge replica join, stay and leave, so that partitions move twice.
func (a *environment) surge(ctx context.Context, i *Injection, stay time.Duration) error {
	if err := i.surge.startPod(ctx, true); err != nil {
		return err
	}
	if err := a.waitReady(ctx, i.surge, 2*a.options.LeaseDuration); err != nil {
		i.note("%v", err)
	}
	err := a.sleep(ctx, stay)
	if stopErr := i.surge.stop(); stopErr != nil {
		i.note("%v", stopErr)
	}
	return err
}

// waitReady waits until the process of a replica is on the ring, at most for the given
// time.
func (a *environment) waitReady(ctx context.Context, s *replicaHarness, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if err := a.eventually(ctx, func(ctx context.Context) error {
		p, err := s.running()
		if err != nil {
			return err
		}
		return p.Ready(ctx)
	}); err != nil {
		return fmt.Errorf("%s was not ready within %v", s.pod, most)
	}
	return nil
}

// hit waits until a gateway's rule has had an effect.
func (a *environment) hit(ctx context.Context, s *replicaHarness, which faultproxy.Class, effect faultproxy.Action, most time.Duration) error {
	before := s.gateway.Counts().Of(which, effect)
	for end := time.Now().Add(most); s.gateway.Counts().Of(which, effect) == before; {
		if time.Now().After(end) {
			return fmt.Errorf("no %v was %v within %v", which, effect, most)
		}
		if err := a.sleep(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
