// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	listers "k8s.io/client-go/listers/coordination/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
)

// plant is a control plane with two API servers, the second of which reaches etcd through
// a tunnel, and a client that reaches both of them through a gateway.
type plant struct {
	t       *testing.T
	tunnel  *faultproxy.Tunnel
	gateway *faultproxy.Gateway
	admin   clientcoordinationv1.LeaseInterface // bypasses the gateway
	leases  clientcoordinationv1.LeaseInterface // uses the gateway
	cached  listers.LeaseNamespaceLister        // uses the gateway
}

func newPlant(t *testing.T) *plant {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute) // the first build takes a long time
	defer cancel()
	binary, err := controlplane.Build(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	cp, err := controlplane.Start(ctx, controlplane.Options{Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the servers' logs:\n%s", cp.LogEnds())
		}
	})
	p := &plant{t: t, tunnel: newTunnel(t, strings.TrimPrefix(cp.Etcd.URL(), "http://"))}
	second, err := cp.StartSecondAPIServer(ctx, "http://"+p.tunnel.Address())
	if err != nil {
		t.Fatal(err)
	}
	toSecond := cp.Admin()
	toSecond.Host = second.URL()
	p.gateway, err = faultproxy.StartGateway(1, cp.Admin(), toSecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.gateway.Close)

	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, p.gateway.Config()); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	p.admin = kubernetes.NewForConfigOrDie(cp.Admin()).CoordinationV1().Leases("default")
	client := kubernetes.NewForConfigOrDie(config)
	p.leases = client.CoordinationV1().Leases("default")

	factory := informers.NewSharedInformerFactory(client, 0)
	p.cached = factory.Coordination().V1().Leases().Lister().Leases("default")
	stop := make(chan struct{})
	factory.Start(stop)
	t.Cleanup(func() {
		close(stop)
		factory.Shutdown()
	})
	eventually(t, "the informer has synced", factory.Coordination().V1().Leases().Informer().HasSynced)
	return p
}

// create creates a Lease without a holder, bypassing the gateway.
func (p *plant) create(name string) *coordinationv1.Lease {
	p.t.Helper()
	l, err := p.admin.Create(p.t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	return l
}

// holder returns the holder of a Lease on the server, bypassing the gateway.
func (p *plant) holder(name string) string {
	p.t.Helper()
	l, err := p.admin.Get(p.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	return holderOf(l)
}

func holderOf(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

func (p *plant) sees(name, holder string) bool {
	l, err := p.cached.Get(name)
	return err == nil && holderOf(l) == holder
}

// hold writes a holder through the gateway, with a given resourceVersion.
func (p *plant) hold(ctx context.Context, l *coordinationv1.Lease, holder string) (*coordinationv1.Lease, error) {
	l = l.DeepCopy()
	l.Spec.HolderIdentity = &holder
	return p.leases.Update(ctx, l, metav1.UpdateOptions{})
}

// TestKubernetes tests the faults with client-go and real servers, which the subtests share.
func TestKubernetes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a control plane: make soak runs it")
	}
	p := newPlant(t)

	t.Run("N3_HalfOpenWatch", func(t *testing.T) {
		l := p.create("watched")
		eventually(t, "the informer sees it", func() bool { return p.sees("watched", "") })
		p.gateway.Set(faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall})
		watches := 0
		eventually(t, "a watch is affected", func() bool {
			watches = p.gateway.Counts().Of(faultproxy.LeaseWatch, faultproxy.Stall)
			return watches > 0
		})
		l, err := p.hold(t.Context(), l, "me")
		if err != nil {
			t.Fatalf("heartbeat: %v, want that it passes", err)
		}
		time.Sleep(moment)
		if p.sees("watched", "me") {
			t.Error("the event arrived")
		}
		if n := p.gateway.Counts().Of(faultproxy.LeaseWatch, faultproxy.Stall); n != watches {
			t.Error("the informer noticed and restarted its watch")
		}
		p.gateway.Set(faultproxy.LeaseWatch, faultproxy.Rule{})
		eventually(t, "the informer sees it after the fault", func() bool { return p.sees("watched", holderOf(l)) })
	})

	t.Run("N6_DroppedResponse", func(t *testing.T) {
		l := p.create("dropped")
		p.gateway.Set(faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.DropResponse})
		_, err := p.hold(t.Context(), l, "me")
		p.gateway.Set(faultproxy.LeaseWrite, faultproxy.Rule{})
		if err == nil || apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
			t.Errorf("the client got %v, want a connection error", err)
		}
		if got := p.holder("dropped"); got != "me" {
			t.Errorf("the Lease is held by %q", got)
		}
	})

	t.Run("N5_LateWrite", func(t *testing.T) {
		l, contested := p.create("late"), p.create("contested")
		before := p.gateway.Counts()
		p.gateway.Set(faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.Stall, Late: true})
		stalled := func(c faultproxy.Counts) int { return c.Of(faultproxy.LeaseWrite, faultproxy.Stall) }
		for i, l := range []*coordinationv1.Lease{l, contested} {
			ctx, giveUp := context.WithCancel(t.Context())
			answer := make(chan error, 1)
			go func() {
				_, err := p.hold(ctx, l, "late")
				answer <- err
			}()
			eventually(t, "the write is held", func() bool { return stalled(p.gateway.Counts()) == stalled(before)+i+1 })
			giveUp()
			if err := <-answer; !errors.Is(err, context.Canceled) {
				t.Errorf("the client got %v, want context canceled", err)
			}
			if got := p.holder(l.Name); got != "" {
				t.Errorf("the Lease is held by %q too early", got)
			}
		}
		contested.Labels = map[string]string{"evicted": "yes"} // another writer is faster
		if _, err := p.admin.Update(t.Context(), contested, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		p.gateway.Set(faultproxy.LeaseWrite, faultproxy.Rule{})
		eventually(t, "the late write was executed", func() bool { return p.holder("late") == "late" })
		time.Sleep(moment) // the other one is forwarded at the same time
		if got := p.holder("contested"); got != "" {
			t.Errorf("the contested Lease is held by %q, want no holder, because the write must be refused", got)
		}
	})

	t.Run("N7_Fail", func(t *testing.T) {
		p.gateway.Set(faultproxy.LeaseRead, faultproxy.Rule{Action: faultproxy.Fail, Status: 503})
		_, err := p.leases.Get(t.Context(), "late", metav1.GetOptions{})
		p.gateway.Set(faultproxy.LeaseRead, faultproxy.Rule{})
		if !apierrors.IsServiceUnavailable(err) {
			t.Errorf("the client got %v, want service unavailable", err)
		}
	})

	t.Run("StaleServer", func(t *testing.T) {
		p.gateway.Route(faultproxy.LeaseWatch, 1)
		p.gateway.Cut(faultproxy.LeaseWatch)
		p.create("before")
		eventually(t, "the informer sees the state of the second server", func() bool { return p.sees("before", "") })
		p.tunnel.Set(faultproxy.Cable{Stall: faultproxy.ToClient})
		l := p.create("unseen")
		if _, err := p.hold(t.Context(), l, "me"); err != nil {
			t.Errorf("write to the first server: %v", err)
		}
		time.Sleep(moment)
		if _, err := p.cached.Get("unseen"); err == nil {
			t.Error("the second server is not stale")
		}
		p.tunnel.Set(faultproxy.Cable{})
		eventually(t, "the second server catches up", func() bool { return p.sees("unseen", "me") })
	})
	t.Logf("the gateway counted:\n%v", counts(p.gateway))
}
