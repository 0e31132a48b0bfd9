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
	{"SIGKILL, restarted in its Pod", anySeat, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		p, err := s.present()
		if err != nil {
			return err
		}
		p.Kill() // and the replica starts it again
		return a.sleep(ctx, a.options.LeaseDuration/2)
	}},
	{"SIGKILL, comes back as another Pod", anySeat, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		s.kill()
		if err := a.sleep(ctx, a.options.LeaseDuration+2*time.Second); err != nil {
			return err
		}
		return s.occupy(ctx, true)
	}},
	{"SIGKILL, another Pod at once", anySeat, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		s.kill()
		if err := s.occupy(ctx, true); err != nil {
			return err
		}
		return a.sleep(ctx, a.options.LeaseDuration+2*time.Second)
	}},
	{"SIGSTOP for half the renew deadline", anySeat, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return pause(ctx, a, s, i, a.options.renewDeadline()/2)
	}},
	{"SIGSTOP past the fence", anySeat, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return pause(ctx, a, s, i, (a.options.renewDeadline()+a.options.LeaseDuration)/2)
	}},
	{"SIGSTOP for two lease durations", anySeat, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return pause(ctx, a, s, i, 2*a.options.LeaseDuration)
	}},
	{"SIGSTOP in a reconcile, for two lease durations", aGateway, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		// Writes that take long: at any moment one is under way.
		if err := s.gateway.Set(faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Delay, Delay: 500 * time.Millisecond}); err != nil {
			return err
		}
		if err := a.sleep(ctx, time.Second); err != nil {
			return err
		}
		return pause(ctx, a, s, i, 2*a.options.LeaseDuration)
	}},
	{"SIGTERM, comes back as another Pod", anySeat, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		began := time.Now()
		if err := s.leave(); err != nil {
			i.note("%v", err)
		}
		i.note("exited after %v", time.Since(began).Round(time.Millisecond))
		if err := a.sleep(ctx, a.between(0, a.options.LeaseDuration)); err != nil {
			return err
		}
		return s.occupy(ctx, true)
	}},
	{"rolling restart", theFleet, func(ctx context.Context, a *environment, _ *replicaHarness, i *Injection) error {
		for _, s := range a.replicas {
			if err := s.leave(); err != nil {
				i.note("%v", err)
			}
			if err := s.occupy(ctx, true); err != nil {
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
			wait.Go(func() { notes[n] = s.leave() })
		}
		wait.Wait()
		for n, s := range a.replicas[:len(notes)] {
			if notes[n] != nil {
				i.note("%v", notes[n])
			}
			if err := s.occupy(ctx, true); err != nil {
				return err
			}
		}
		return nil
	}},
	{"a replica more, for a while", theVisitor, func(ctx context.Context, a *environment, _ *replicaHarness, i *Injection) error {
		return a.visit(ctx, i, a.options.LeaseDuration)
	}},
	{"duplicate identity in the same Pod", anySeat, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return duplicate(ctx, a, s, i, false)
	}},
	{"duplicate name in another Pod", anySeat, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return duplicate(ctx, a, s, i, true)
	}},
	{"slow reconciles while partitions move", theVisitor, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		if err := s.gateway.Set(faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Delay, Delay: 2 * time.Second}); err != nil {
			return err
		}
		return a.visit(ctx, i, a.options.LeaseDuration)
	}},
	// With the servers away too, it would be fenced, break the write off, and end well.
	{"a reconcile that does not end, and SIGTERM", aSeatAndServer, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		if err := s.gateway.Set(faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Stall}); err != nil {
			return err
		}
		if err := a.hit(ctx, s, faultproxy.ObjectWrite, faultproxy.WasStalled, a.options.LeaseDuration); err != nil {
			return err
		}
		p := s.disableRestart()
		err := p.Stop()
		i.note("exit code %d", p.ExitCode())
		if p.ExitCode() == 0 {
			a.breach("V1", "%s was stopped while a write of it did not end, and has exited with 0", p)
		}
		if err == nil {
			i.note("no error")
		}
		s.clearFaults()
		return s.occupy(ctx, false)
	}},
}

// pause stops the execution of a process for a while.
func pause(ctx context.Context, a *environment, s *replicaHarness, i *Injection, d time.Duration) error {
	p, err := s.present()
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

// duplicate starts a second process with the identity of one that runs, and ends
// one of the two.
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
		i.note("the second one goes")
		if err := second.Stop(); err != nil {
			i.note("%v", err)
		}
		return nil
	}
	i.note("the first one goes")
	if p, err := s.present(); err == nil {
		p.Kill() // and is started again, as a third one
	}
	return a.sleep(ctx, a.options.LeaseDuration)
}

// visit lets the visitor join, stay and leave, so that partitions move twice.
func (a *environment) visit(ctx context.Context, i *Injection, stay time.Duration) error {
	if err := i.visitor.occupy(ctx, true); err != nil {
		return err
	}
	if err := a.waitReady(ctx, i.visitor, 2*a.options.LeaseDuration); err != nil {
		i.note("%v", err)
	}
	err := a.sleep(ctx, stay)
	if leaveErr := i.visitor.leave(); leaveErr != nil {
		i.note("%v", leaveErr)
	}
	return err
}

// waitReady waits until the process of a replica is on the ring, or for as long as
// that may take.
func (a *environment) waitReady(ctx context.Context, s *replicaHarness, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if err := a.eventually(ctx, func(ctx context.Context) error {
		p, err := s.present()
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
func (a *environment) hit(ctx context.Context, s *replicaHarness, which faultproxy.Class, effect faultproxy.Effect, most time.Duration) error {
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
