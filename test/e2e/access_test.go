// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// as makes a replica act as a user of the control plane.
func (w *harness) as(name string, config *rest.Config) func(*replica.Config) {
	w.t.Helper()
	path := filepath.Join(w.dir, name+".kubeconfig")
	if err := controlplane.WriteKubeconfig(path, config); err != nil {
		w.t.Fatal(err)
	}
	return func(c *replica.Config) { c.Kubeconfig = path }
}

// waitExit waits until a process has exited on its own, and returns its exit code.
func (w *harness) waitExit(p *replica.Process) int {
	w.t.Helper()
	w.eventually(p.String()+" ends", func(context.Context) error {
		if !p.Ended() {
			return errors.New("it runs")
		}
		return nil
	})
	return p.ExitCode()
}

// Without access to Leases, a replica exits and logs which rule is missing.
func TestMissingAccess(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testMissingAccess)
}

func testMissingAccess(t *attempt) {
	w := newHarness(t)
	stranger, err := w.plane.cp.User("stranger-to-" + w.namespace)
	if err != nil {
		t.Fatal(err)
	}
	p := w.start("stranger", w.as("stranger", stranger))
	if code := w.waitExit(p); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	log := p.Tail(1000)
	for _, want := range []string{"access to Leases is forbidden", w.namespace, "get, list, watch, create, update, delete", "coordination.k8s.io"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not contain %q:\n%s", want, log)
		}
	}

	// All verbs except one.
	clerk, err := w.plane.cp.ServiceAccount(w.namespace, "clerk")
	if err != nil {
		t.Fatal(err)
	}
	w.grant("clerk", "get", "list", "watch", "create", "update")
	w.waitAllowed(clerk)
	p = w.start("clerk", w.as("clerk", clerk))
	if code := w.waitExit(p); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if log := p.Tail(1000); !strings.Contains(log, "may not delete leases.coordination.k8s.io") {
		t.Errorf("the log does not report that only delete is missing:\n%s", log)
	}
	if leases, err := w.leases(t.Context()); err != nil || len(leases) != 0 {
		t.Errorf("%d Leases were left (%v)", len(leases), err)
	}
}

// waitAllowed waits until the API server allows a user to list Leases: its authorizer learns
// of a new role with a delay.
func (w *harness) waitAllowed(config *rest.Config) {
	w.t.Helper()
	client := mustClient(w.t, config)
	w.eventually("the role is in force", func(ctx context.Context) error {
		_, err := client.CoordinationV1().Leases(w.leasesIn).List(ctx, metav1.ListOptions{})
		return err
	})
}

// grant grants a ServiceAccount verbs on Leases.
func (w *harness) grant(account string, verbs ...string) {
	w.t.Helper()
	_, err := w.kube.RbacV1().Roles(w.namespace).Create(w.t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: account},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: verbs}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.kube.RbacV1().RoleBindings(w.namespace).Create(w.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: w.namespace}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
}

// The API server accepts the manifests unchanged, and they grant all permissions that a
// replica needs.
func TestManifestsGrantAllNeededPermissions(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testManifestsAllowWhatIsNeeded)
}

func testManifestsAllowWhatIsNeeded(t *attempt) {
	const objects = 30
	w := newHarness(t)
	// A kustomization does not load files from outside its directory, except other
	// kustomizations.
	overlay := filepath.Join(w.dir, "overlay")
	if err := os.MkdirAll(overlay, 0o755); err != nil {
		t.Fatal(err)
	}
	base, err := filepath.Rel(overlay, filepath.Dir(manifests("kustomization.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("namespace: %s\nresources: [%q]\n", w.namespace, filepath.ToSlash(base))
	if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	applied, err := w.plane.cp.Kubectl(t.Context(), "apply", "--server-side", "--force-conflicts", "--kustomize", overlay)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("applied:\n%s", applied)

	account, err := w.plane.cp.ServiceAccount(w.namespace, "foo-operator")
	if err != nil {
		t.Fatal(err)
	}
	allowed := w.as("foo-operator", account)
	w.createFoos(0, objects)
	w.waitAllowed(account)
	replicas := w.startMany(0, 3, allowed)
	w.waitWorked(replicas...)
	// Every type of write: repair, create again, evict, take over, release.
	w.eachFoo(0, 5, func(name string) error { return w.patchDeployment(name, `{"spec":{"replicas":7}}`) })
	w.eachFoo(5, 10, w.deleteDeployment)
	replicas[0].Kill()
	w.waitWorked(replicas[1:]...)
	w.eventually("Deployments are repaired", func(ctx context.Context) error {
		after := w.deployments()
		for i := range 10 {
			name := fmt.Sprintf("foo-%d", i)
			if d, there := after[name]; !there || *d.Spec.Replicas != 1 {
				return fmt.Errorf("Deployment %s is not repaired", name)
			}
		}
		events, err := w.kube.CoreV1().Events(w.namespace).List(ctx, metav1.ListOptions{})
		if err == nil && len(events.Items) == 0 {
			err = fmt.Errorf("no Events exist")
		}
		return err
	})
	back := w.start(replicas[0].Pod(), allowed)
	w.waitWorked(back, replicas[1], replicas[2])
	w.check(true)
	w.stop(back, replicas[1], replicas[2])
	for _, r := range w.all() {
		for line := range strings.Lines(r.Tail(10000)) {
			if strings.Contains(strings.ToLower(line), "forbidden") {
				t.Errorf("a request of %s was refused: %s", r, line)
				break
			}
		}
	}
}
