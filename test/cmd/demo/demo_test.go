// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/foos"
)

// runAsDemo is the environment variable that makes the test binary run as the command.
const runAsDemo = "DEMO_TEST_RUN_AS_DEMO"

func TestMain(m *testing.M) {
	if os.Getenv(runAsDemo) != "" {
		os.Exit(command())
	}
	os.Exit(m.Run())
}

// running is a demo that runs as a separate process, with its own directory.
type running struct {
	*exec.Cmd
	files string
	ended chan struct{} // closed when the process has ended

	mu   sync.Mutex
	text bytes.Buffer // its output
}

func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *running) output() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func demonstrate(t *testing.T, args ...string) *running {
	t.Helper()
	if testing.Short() {
		t.Skip("takes a control plane")
	}
	// The tests are not about the build, and an interrupt should not hit it.
	if _, err := controlplane.Build(t.Context(), os.Stderr); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"-lease-duration=5s", "-pause=1500ms"}, args...)
	r := &running{Cmd: exec.Command(os.Args[0], args...), files: t.TempDir(), ended: make(chan struct{})}
	r.Env = append(os.Environ(), runAsDemo+"=1", "TMPDIR="+r.files)
	r.Stdout, r.Stderr = r, r
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.Wait() // the tests read ProcessState
		close(r.ended)
	}()
	t.Cleanup(func() {
		_ = r.Process.Kill() // fails if it has ended
		<-r.ended
	})
	return r
}

// await waits until a text is printed.
func (r *running) await(t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(r.output(), text) {
		select {
		case <-r.ended:
			t.Fatalf("%q was not printed:\n%s", text, r.output())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// end waits for the end of the process, and checks the exit code and that nothing is left.
func (r *running) end(t *testing.T, code int) {
	t.Helper()
	<-r.ended
	if got := r.ProcessState.ExitCode(); got != code {
		t.Fatalf("exit code %d, want %d:\n%s", got, code, r.output())
	}
	if left, _ := filepath.Glob(filepath.Join(r.files, "*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	if left := processesIn(t, r.files); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

// processesIn returns the command lines that contain a directory. All processes of a demo
// have files in its directory.
func processesIn(t *testing.T, dir string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, []byte(dir)) { // otherwise it has just ended
			found = append(found, string(bytes.ReplaceAll(text, []byte{0}, []byte(" "))))
		}
	}
	return found
}

func TestDemo(t *testing.T) {
	demo := demonstrate(t, "-objects=120")
	demo.end(t, 0)
	t.Log("\n" + demo.output())
	for _, want := range []string{
		`each object was processed: 120 objects, \d+ reconciles`,
		`foo-operator-3 joined: \d+ objects moved`,
		`foo-operator-1 was stopped: \d+ objects moved`,
		`foo-operator-2 was killed: \d+ objects moved`,
		`\b0  objects that two members worked on at the same time`,
		`\b0  objects not processed at their last version`,
		`\b0  objects without an owner at the end`,
		`Cleaned up`,
	} {
		if !regexp.MustCompile(want).MatchString(demo.output()) {
			t.Errorf("%q was not printed", want)
		}
	}
}

func TestInterruptCleansUp(t *testing.T) {
	for _, when := range []string{"building the replica", "foo-operator-3 joined"} {
		t.Run(when, func(t *testing.T) {
			demo := demonstrate(t, "-objects=60")
			demo.await(t, when)
			if err := demo.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			interrupted := time.Now()
			demo.end(t, exitInterrupted)
			if took := time.Since(interrupted); took > time.Minute {
				t.Errorf("took %v", took)
			}
			if !strings.Contains(demo.output(), "Cleaned up") {
				t.Errorf("does not report that it has cleaned up:\n%s", demo.output())
			}
		})
	}
}

func TestKilledDemoLeavesNoProcess(t *testing.T) {
	demo := demonstrate(t, "-objects=60")
	demo.await(t, "foo-operator-3 joined")
	if err := demo.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Minute); len(processesIn(t, demo.files)) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("processes are left: %v", processesIn(t, demo.files))
		}
	}
}

// users starts a control plane that plays the role of the user's cluster.
func users(t *testing.T) *controlplane.ControlPlane {
	t.Helper()
	if testing.Short() {
		t.Skip("takes a control plane")
	}
	plane, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plane.Stop)
	t.Cleanup(finalizeNamespaces(t, plane.Admin()))
	return plane
}

func TestUsersClusterIsRestored(t *testing.T) {
	plane := users(t)
	before := everything(t, plane.Admin())
	demo := demonstrate(t, "-objects=60", "-kubeconfig="+plane.Kubeconfig())
	demo.end(t, 0)
	for _, want := range []string{"context    control-plane", "namespace  operator-scaling-demo-", "Cleaned up"} {
		if !strings.Contains(demo.output(), want) {
			t.Errorf("%q was not printed:\n%s", want, demo.output())
		}
	}
	if after := everything(t, plane.Admin()); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestOtherFoosAreNotTouched(t *testing.T) {
	plane := users(t)
	client, err := dynamic.NewForConfig(plane.Admin())
	if err != nil {
		t.Fatal(err)
	}
	if err := foos.Install(t.Context(), plane.Admin(), map[string]string{label: "other"}); err != nil {
		t.Fatal(err)
	}
	createFoo(t, plane.Admin())
	before := everything(t, plane.Admin())
	demo := demonstrate(t, "-objects=60", "-kubeconfig="+plane.Kubeconfig())
	demo.await(t, "is killed") // the rest is tested above
	if err := demo.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	demo.end(t, exitInterrupted)
	if after := everything(t, plane.Admin()); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}

	// The demo also keeps a CRD that it created if others use it now.
	if err := remove(client.Resource(foos.CRDs), "other", nil); err != nil {
		t.Fatal(err)
	}
	r := &cluster{config: plane.Admin(), namespace: "operator-scaling-demo-1", run: "1"}
	if err := r.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	createFoo(t, plane.Admin())
	before = everything(t, plane.Admin())
	if err := r.remove(); err == nil || !strings.Contains(err.Error(), "default/foo-000") {
		t.Errorf("the error does not name the Foo that prevents the removal: %v", err)
	}
	if after := everything(t, plane.Admin()); after != strings.Replace(before, r.namespace+"\n", "", 1) {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func createFoo(t *testing.T, config *rest.Config) {
	t.Helper()
	f, err := foos.In("default", config)
	if err == nil {
		err = f.Add(t.Context(), "foo-000")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// everything lists the namespaces and the Deployments, and the CRD and the Foos with their
// versions.
func everything(t *testing.T, config *rest.Config) string {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, resource := range []schema.GroupVersionResource{
		corev1.SchemeGroupVersion.WithResource("namespaces"), appsv1.SchemeGroupVersion.WithResource("deployments"),
		foos.CRDs, foos.Resource,
	} {
		list, err := client.Resource(resource).List(t.Context(), metav1.ListOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Items {
			if resource == foos.CRDs || resource.Resource == "foos" {
				names = append(names, o.GetName()+" "+o.GetResourceVersion())
			} else {
				names = append(names, o.GetName())
			}
		}
	}
	return strings.Join(names, "\n")
}

// finalizeNamespaces acts as the namespace controller, which this control plane lacks: it
// deletes the contents of terminating namespaces, then finalizes them.
func finalizeNamespaces(t *testing.T, config *rest.Config) (stop func()) {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	anything, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	finalize := func(n *corev1.Namespace) error {
		for _, resource := range []schema.GroupVersionResource{
			foos.Resource, appsv1.SchemeGroupVersion.WithResource("deployments"),
		} {
			err := anything.Resource(resource).Namespace(n.Name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		n.Spec.Finalizers = nil
		_, err := client.CoreV1().Namespaces().Finalize(ctx, n, metav1.UpdateOptions{})
		return err
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for foos.Sleep(ctx, 100*time.Millisecond) == nil {
			list, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
			if err != nil {
				continue // the control plane is stopping
			}
			for _, n := range list.Items {
				if n.Status.Phase != corev1.NamespaceTerminating {
					continue
				}
				if err := finalize(&n); err != nil && ctx.Err() == nil {
					t.Logf("finalize namespace %s: %v", n.Name, err) // it is retried
				}
			}
		}
	})
	return func() { cancel(); wait.Wait() }
}
