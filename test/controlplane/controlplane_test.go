// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/test/child"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
)

// binary is built once for all tests.
var binary string

// asParent is the environment variable that makes the test binary start a control plane,
// print the servers' process IDs and wait to be killed.
const asParent = "CONTROL_PLANE_TEST_AS_PARENT"

func TestMain(m *testing.M) {
	if b := os.Getenv(asParent); b != "" {
		runAsParent(b)
	}
	var err error
	if binary, err = controlplane.Build(context.Background(), os.Stderr); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func start(t *testing.T, options controlplane.Options) *controlplane.ControlPlane {
	t.Helper()
	options.Binary = binary
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	begin := time.Now()
	cp, err := controlplane.Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the servers' logs:\n%s", cp.LogEnds())
		}
	})
	t.Logf("ready after %s; resident: etcd %d MB, kube-apiserver %d MB", time.Since(begin).Round(time.Millisecond),
		resident(cp.Etcd.PID()), resident(cp.APIServer.PID()))
	return cp
}

// resident returns a process's memory in MB, 0 if it cannot be read from /proc.
func resident(pid int) int {
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	if fields := strings.Fields(after); len(fields) > 0 {
		kb, _ := strconv.Atoi(fields[0])
		return kb / 1000
	}
	return 0
}

// soak skips a test that takes too long for make test.
func soak(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("not with -short: make soak runs it")
	}
}

func client(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// eventually waits for what the control plane does in the background.
func eventually(t *testing.T, what string, condition func(ctx context.Context) (bool, error)) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 10*time.Minute, true, condition); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

const widgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.test.example.com}
spec:
  group: test.example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// TestControlPlane covers what tests do with a control plane. The subtests share one and
// run in order, because the last ones restart it.
func TestControlPlane(t *testing.T) {
	soak(t)
	cp := start(t, controlplane.Options{GarbageCollector: true})
	admin := client(t, cp.Admin())

	t.Run("C1_ReadyAndVersioned", func(t *testing.T) {
		version, err := admin.Discovery().ServerVersion()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(version.GitVersion, "v1.") || version.Minor == "" {
			t.Errorf("the server has version %+v, want the version in go.mod", version)
		}
		out, err := cp.Kubectl(t.Context(), "version")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(out, version.GitVersion) != 2 {
			t.Errorf("kubectl version printed %q, want client and server to be %s", out, version.GitVersion)
		}
	})

	t.Run("C4_CustomResources", func(t *testing.T) {
		file := t.TempDir() + "/widgets.yaml"
		if err := os.WriteFile(file, []byte(widgets), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := cp.Kubectl(t.Context(), "apply", "-f", file); err != nil {
			t.Fatal(err)
		}
		if _, err := cp.Kubectl(t.Context(), "wait", "--for=condition=Established", "crd/widgets.test.example.com"); err != nil {
			t.Fatal(err)
		}
		resource := schema.GroupVersionResource{Group: "test.example.com", Version: "v1", Resource: "widgets"}
		d, err := dynamic.NewForConfig(cp.Admin())
		if err != nil {
			t.Fatal(err)
		}
		widget := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "test.example.com/v1", "kind": "Widget",
			"metadata": map[string]any{"name": "w"}, "spec": map[string]any{"size": int64(3)},
		}}
		if _, err := d.Resource(resource).Namespace("default").Create(t.Context(), widget, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		got, err := d.Resource(resource).Namespace("default").Get(t.Context(), "w", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if size, _, _ := unstructured.NestedInt64(got.Object, "spec", "size"); size != 3 || got.GetGeneration() != 1 {
			t.Errorf("got %v, want size 3 at generation 1", got.Object)
		}
	})

	t.Run("C4_ConflictingLeaseUpdate", func(t *testing.T) {
		leases := admin.CoordinationV1().Leases("default")
		lease, err := leases.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "l"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		stale := lease.DeepCopy()
		holder := "one"
		lease.Spec.HolderIdentity = &holder
		if _, err := leases.Update(t.Context(), lease, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := leases.Update(t.Context(), stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("update of a stale Lease: %v, want a conflict", err)
		}
	})

	t.Run("C4_RBAC", func(t *testing.T) {
		reader := client(t, cp.ServiceAccount("default", "reader"))
		if _, err := reader.CoordinationV1().Leases("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("list without a role: %v, want forbidden", err)
		}
		for _, args := range [][]string{
			{"create", "role", "reader", "--verb=list", "--resource=leases.coordination.k8s.io"},
			{"create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader"},
		} {
			if _, err := cp.Kubectl(t.Context(), args...); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "list with a role", func(ctx context.Context) (bool, error) {
			_, err := reader.CoordinationV1().Leases("default").List(ctx, metav1.ListOptions{})
			if apierrors.IsForbidden(err) {
				return false, nil // the authorizer's informers lag
			}
			return err == nil, err
		})
		if err := reader.CoordinationV1().Leases("default").Delete(t.Context(), "l", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("delete with a role for list: %v, want forbidden", err)
		}
	})

	t.Run("GarbageCollector", func(t *testing.T) {
		maps := admin.CoreV1().ConfigMaps("default")
		owner, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		child := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "child", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.UID},
		}}}
		if _, err := maps.Create(t.Context(), child, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := maps.Delete(t.Context(), "owner", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the child is deleted with its owner", func(ctx context.Context) (bool, error) {
			_, err := maps.Get(ctx, "child", metav1.GetOptions{})
			return apierrors.IsNotFound(err), nil
		})
	})

	t.Run("C2_PauseAndResume", func(t *testing.T) {
		for name, s := range map[string]*controlplane.Server{"kube-apiserver": cp.APIServer, "etcd": cp.Etcd} {
			if err := s.Pause(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			// A quorum read, which needs a response of etcd.
			_, err := admin.CoordinationV1().Leases("default").List(ctx, metav1.ListOptions{})
			cancel()
			if err == nil {
				t.Errorf("%s responded while it was paused", name)
			}
			if err := s.Resume(); err != nil {
				t.Fatal(err)
			}
			eventually(t, name+" answers after it was resumed", func(ctx context.Context) (bool, error) {
				_, err := admin.CoordinationV1().Leases("default").List(ctx, metav1.ListOptions{})
				return err == nil, nil
			})
		}
	})

	t.Run("C2_SecondAPIServer", func(t *testing.T) {
		second, err := cp.StartSecondAPIServer(t.Context(), cp.Etcd.URL())
		if err != nil {
			t.Fatal(err)
		}
		config := cp.Admin()
		config.Host = second.URL()
		if _, err := client(t, config).CoordinationV1().Leases("default").Get(t.Context(), "l", metav1.GetOptions{}); err != nil {
			t.Errorf("the second server does not have what the first one stored: %v", err)
		}
		second.Stop()
	})

	t.Run("C2_RestartKeepsDataAndAddress", func(t *testing.T) {
		before, err := admin.CoordinationV1().Leases("default").Get(t.Context(), "l", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cp.APIServer.Kill()
		if pid := cp.APIServer.PID(); pid != 0 {
			t.Errorf("the killed server has the process id %d", pid)
		}
		if err := cp.APIServer.Pause(); !errors.Is(err, child.ErrEnded) {
			t.Errorf("pausing a killed server: %v, want child.ErrEnded", err)
		}
		cp.Etcd.Kill()
		for _, s := range []*controlplane.Server{cp.Etcd, cp.APIServer} {
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := cp.APIServer.Start(t.Context()); err == nil {
			t.Error("starting a running server: no error")
		}
		after, err := admin.CoordinationV1().Leases("default").Get(t.Context(), "l", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if after.UID != before.UID || after.ResourceVersion != before.ResourceVersion {
			t.Errorf("after the restart: %s at %s, want %s at %s", after.UID, after.ResourceVersion, before.UID, before.ResourceVersion)
		}
	})

	// The restarted server's watch cache starts now and has no older events.
	t.Run("C4_StaleWatchIsGone", func(t *testing.T) {
		eventually(t, "410 for an old watch", func(ctx context.Context) (bool, error) {
			w, err := admin.CoordinationV1().Leases("default").Watch(ctx, metav1.ListOptions{ResourceVersion: "1"})
			if err != nil {
				return apierrors.IsResourceExpired(err) || apierrors.IsGone(err), nil
			}
			defer w.Stop()
			event := <-w.ResultChan()
			err = apierrors.FromObject(event.Object)
			return apierrors.IsResourceExpired(err) || apierrors.IsGone(err), nil
		})
	})
}

func TestFeatureGates(t *testing.T) {
	soak(t)
	cp := start(t, controlplane.Options{APIServerArgs: []string{"--feature-gates=ShardedListAndWatch=true"}})
	maps := client(t, cp.Admin()).CoreV1().ConfigMaps("default")
	for range 32 {
		if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "m-"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := maps.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	half, err := maps.List(t.Context(), metav1.ListOptions{
		ShardSelector: "shardRange(object.metadata.uid, '0x0000000000000000', '0x8000000000000000')",
	})
	if err != nil {
		t.Fatal(err)
	}
	if half.ShardInfo == nil || len(half.Items) == 0 || len(half.Items) >= len(all.Items) {
		t.Errorf("the server selected %d of %d with ShardInfo %v; want a part of them", len(half.Items), len(all.Items), half.ShardInfo)
	}
}

func TestC3_StopLeavesNothing(t *testing.T) {
	soak(t)
	cp := start(t, controlplane.Options{GarbageCollector: true})
	pids := []int{cp.Etcd.PID(), cp.APIServer.PID(), cp.GarbageCollector.PID()}
	if err := cp.Etcd.Pause(); err != nil { // a paused process must end too
		t.Fatal(err)
	}
	cp.Stop()
	for _, pid := range pids {
		if pid == 0 || syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d is still there after Stop", pid)
		}
	}
	if _, err := os.Stat(cp.Dir()); !os.IsNotExist(err) {
		t.Errorf("%s is still there after Stop: %v", cp.Dir(), err)
	}
	cp.Stop()
}

// runAsParent is the body of the process that TestC3_NothingOutlivesTheParent kills.
func runAsParent(binary string) {
	cp, err := controlplane.Start(context.Background(), controlplane.Options{Binary: binary, Dir: os.Getenv(asParent + "_DIR")})
	if err != nil {
		panic(err)
	}
	if runtime.GOOS == "linux" { // elsewhere a paused process does not notice
		if err := cp.Etcd.Pause(); err != nil {
			panic(err)
		}
	}
	_, _ = os.Stdout.WriteString(strconv.Itoa(cp.Etcd.PID()) + " " + strconv.Itoa(cp.APIServer.PID()) + "\n")
	select {}
}

func TestC3_NothingOutlivesTheParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), asParent+"="+binary, asParent+"_DIR="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	parent.Stderr = os.Stderr
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	for _, field := range strings.Fields(string(line[:n])) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() { // leave no process behind
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		})
		eventually(t, "server "+field+" ends with its parent", func(context.Context) (bool, error) {
			return syscall.Kill(pid, 0) != nil, nil
		})
	}
}

func TestStartShowsTheLogOfAFailedServer(t *testing.T) {
	dir := t.TempDir()
	_, err := controlplane.Start(t.Context(), controlplane.Options{Binary: binary, Dir: dir, APIServerArgs: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("got %v, want an error with the output of kube-apiserver", err)
	}
}
