// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/test/audit"
	"github.com/tom-ludwig/operator-scaling/test/audit/etcdlog"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/foos"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

const (
	// leaseDuration of most tests.
	leaseDuration = 5 * time.Second
	// patience is how long a test waits for something that should happen soon, on a machine
	// that does not stall. A passing test does not need it.
	patience = 3 * time.Minute
	// silence is how long the API server may fail to respond before a wait is abandoned.
	silence = 5 * time.Minute
	// poll is the first interval between two checks of a condition; later intervals are
	// longer, up to a tenth of a second.
	poll = 20 * time.Millisecond
)

// harness is the environment of one test: a namespace with its own ring.
type harness struct {
	t         *attempt
	plane     *plane
	namespace string // of the Foos
	leasesIn  string // of the Leases and Pods: the same, except for a harness from withRing
	ring      string
	dir       string
	kube      kubernetes.Interface
	foos      foos.Foos
	log       *etcdlog.Log
	workAlone bool // the number of partitions changes: see worklog.Options
	// template of the replicas that start.
	template replica.Config

	mu        sync.Mutex
	processes []*replica.Process // all processes that were ever started
}

// newHarness returns a harness without replicas. When the test ends, the replicas are
// killed. If the test has failed, it shows the end of their logs.
func newHarness(t *attempt) *harness {
	t.Helper()
	return newHarnessOn(t, shared.plane)
}

// newHarnessOn returns a harness on the test's own control plane.
func newHarnessOn(t *attempt, p *plane) *harness {
	t.Helper()
	name := namespaceFor(t)
	return makeHarness(t, p, name, name, "ring")
}

// withRing returns a harness with its own Foos and a ring of another name, whose Leases and
// Pods are in the same namespace as those of w.
func (w *harness) withRing(ring string) *harness {
	w.t.Helper()
	return makeHarness(w.t, w.plane, w.namespace+"-"+ring, w.leasesIn, ring)
}

// namespaceFor derives a namespace from the name of the test.
func namespaceFor(t testing.TB) string {
	name := strings.ToLower(strings.TrimPrefix(t.Name(), "Test"))
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	// Long names are valid, but make logs hard to read.
	return strings.Trim(name[:min(len(name), 40)], "-") + "-" + strconv.FormatInt(rand.Int64N(36*36*36*36), 36)
}

func makeHarness(t *attempt, p *plane, namespace, leasesIn, ring string) *harness {
	t.Helper()
	w := &harness{t: t, plane: p, namespace: namespace, leasesIn: leasesIn, ring: ring, dir: filepath.Join(shared.dir, namespace)}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.monitor(&p.beat)
	admin := p.cp.Admin()
	w.kube = mustClient(t, admin)
	var err error
	if w.foos, err = foos.In(w.namespace, admin); err != nil {
		t.Fatal(err)
	}
	if _, err := w.kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if w.log, err = etcdlog.Watch(t.Context(), p.cp.Etcd.URL(), w.leasesIn, w.namespace); err != nil {
		t.Fatal(err)
	}
	w.template = replica.Config{
		Binary: shared.binary, Kubeconfig: p.cp.Kubeconfig(), Dir: w.dir,
		Ring: w.ring, Namespace: w.leasesIn, Watch: w.namespace,
		Args: []string{"--lease-duration=" + leaseDuration.String(), "--workers=8", "--kube-api-qps=1000", "--kube-api-burst=1000", "-v=2"},
	}
	t.Cleanup(w.end)
	return w
}

// end kills all processes, and shows the logs if the test has failed.
func (w *harness) end() {
	for _, p := range w.all() {
		p.Kill()
	}
	w.log.Close()
	if !w.t.Failed() {
		return
	}
	for _, p := range w.all() {
		w.t.Logf("end of the log of %s (exit code %d):\n%s", p, p.ExitCode(), p.Tail(25))
	}
	w.t.Logf("end of the servers' logs:\n%s", w.plane.cp.LogEnds())
}

// all returns every process that was ever started, in that order.
func (w *harness) all() []*replica.Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.processes)
}

// pod creates a Pod with that name, unless it exists, and returns its UID, so that a
// replica's identity is that of a real object.
func (w *harness) pod(name string) types.UID {
	w.t.Helper()
	pods := w.kube.CoreV1().Pods(w.leasesIn)
	pod, err := pods.Create(w.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   new(true),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "controller", Image: "example-controller",
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false),
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		pod, err = pods.Get(w.t.Context(), name, metav1.GetOptions{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return pod.UID
}

// start starts a replica in the Pod with that name and does not wait for it.
func (w *harness) start(pod string, changes ...func(*replica.Config)) *replica.Process {
	w.t.Helper()
	c := w.template
	c.Pod, c.PodUID = pod, string(w.pod(pod))
	c.Args = slices.Clone(c.Args)
	for _, change := range changes {
		change(&c)
	}
	p, err := replica.Start(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.processes = append(w.processes, p)
	w.plane.watch(w.namespace+"/"+p.String(), func(ctx context.Context) (bool, error) {
		pauses := p.Pauses()
		err := p.Ready(ctx)
		if errors.Is(err, replica.ErrNotReady) {
			err = nil // a response
		}
		if p.Paused() || p.Pauses() != pauses {
			err = errNoneExpected
		}
		return !p.Ended(), err
	})
	return p
}

// startMany starts replicas op-from to op-(to-1), as a StatefulSet names them.
func (w *harness) startMany(from, to int, changes ...func(*replica.Config)) []*replica.Process {
	w.t.Helper()
	for i := from; i < to; i++ {
		w.pod(fmt.Sprintf("op-%d", i)) // so that the processes start at the same time
	}
	var started []*replica.Process
	for i := from; i < to; i++ {
		started = append(started, w.start(fmt.Sprintf("op-%d", i), changes...))
	}
	return started
}

// stop stops replicas gracefully, all at the same time.
func (w *harness) stop(processes ...*replica.Process) {
	w.t.Helper()
	var wait sync.WaitGroup
	for _, p := range processes {
		wait.Go(func() {
			if err := p.Stop(); err != nil {
				w.t.Error(err)
			}
		})
	}
	wait.Wait()
}

// setFlag sets a flag of all replicas that start later.
func (w *harness) setFlag(name string, value any) {
	w.template.Args = append(w.template.Args, fmt.Sprintf("--%s=%v", name, value))
}

// args adds flags to a replica.
func args(flags ...string) func(*replica.Config) {
	return func(c *replica.Config) { c.Args = append(c.Args, flags...) }
}

// createFoos creates foo-from to foo-(to-1).
func (w *harness) createFoos(from, to int) {
	w.t.Helper()
	w.eachFoo(from, to, func(name string) error { return w.foos.Add(w.t.Context(), name) })
}

// eachFoo calls f for foo-from to foo-(to-1), a few at a time.
func (w *harness) eachFoo(from, to int, f func(name string) error) {
	w.t.Helper()
	names := make(chan string)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for name := range names {
				if err := f(name); err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	for i := from; i < to; i++ {
		names <- fmt.Sprintf("foo-%d", i)
	}
	close(names)
	wait.Wait()
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// key returns the key of a Foo in the records.
func (w *harness) key(name string) string { return w.namespace + "/" + name }

// listFoos returns all Foos by name.
func (w *harness) listFoos() (map[string]v1alpha1.Foo, error) {
	list, err := w.foos.List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	foos := make(map[string]v1alpha1.Foo, len(list.Items))
	for _, foo := range list.Items {
		foos[foo.Name] = foo
	}
	return foos, nil
}

// churn changes random Foos, at about the given rate if the server can keep up, until the
// returned function is called. That function returns the number of changes.
func (w *harness) churn(count int, perSecond float64) (stop func() int) {
	return foos.Load(w.t.Context(), perSecond, func(ctx context.Context, n int) error {
		return w.foos.Change(ctx, fmt.Sprintf("foo-%d", rand.IntN(count)), n%100)
	})
}

// patchFoo changes a Foo from outside, unconditionally.
func (w *harness) patchFoo(name, patch string) error {
	_, err := w.foos.Patch(w.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// now returns the current time on the clock of records.
func now() int64 { return worklog.Now() }

// histories returns the records of all replicas.
func (w *harness) histories() []worklog.Process {
	w.t.Helper()
	var all []worklog.Process
	for _, p := range w.all() {
		h, err := p.History()
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, h)
	}
	return all
}

// check checks the run so far: no two members may have worked on an object at the same time
// and, with final, each Foo must have been processed at its last version. Call it when
// nothing changes any more, and before the replicas are stopped for good.
func (w *harness) check(final bool) *worklog.Report {
	w.t.Helper()
	options := worklog.Options{End: now(), WritesRecorded: true, WorkAlone: w.workAlone}
	if final {
		var err error
		if options.Final, _, err = w.foos.State(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	w.sync()
	processes := w.histories()
	report := worklog.Check(processes, options)
	// A status can be visible a moment before the end of the work that wrote it is recorded.
	_ = w.plane.eventually(w.t.Context(), func(context.Context) error {
		if audit.Count(report.Findings, worklog.Loss) == 0 {
			return nil
		}
		options.End = now()
		processes = w.histories()
		report = worklog.Check(processes, options)
		return errors.New("not yet")
	})
	if len(report.Findings) > 0 {
		w.t.Brokenf("the records of the replicas:\n%s", describe(report))
	} else {
		w.t.Logf("the records of the replicas:\n%s", describe(report))
	}
	seen := w.log.Check(w.ring, processes)
	if err := seen.Err(); err != nil {
		w.t.Brokenf("the history of the Leases: %v", err)
	}
	w.t.Logf("the history of the Leases: %d writes, %d starts of work, %d moves, %d contested claims, %d findings",
		seen.Writes, seen.Starts, seen.Moves, seen.Contests, len(seen.Findings))
	return report
}

// describe returns a report as tables, with the first findings of each kind.
func describe(r *worklog.Report) string {
	var b strings.Builder // its writes never fail
	fmt.Fprintf(&b, "%s: %d processes, %d keys, %d reconciles (%d failed)\n", round(time.Duration(r.End-r.Begin)), len(r.Processes), r.Keys, r.Reconciles, r.Failed)
	fmt.Fprintf(&b, "handovers: %d of partitions, %d of keys\n", r.Handovers, r.Moves)
	fmt.Fprintf(&b, "keys by their number of reconciles: %v\n", r.KeysByReconciles)

	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nPROCESS\tRECONCILES\tFAILED\tKEYS\tGAINED\tRELEASED\tOWNED\tFENCED\tEND")
	for _, p := range r.Processes {
		end := p.Ended
		if end == "" {
			end = "running"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", p.Process, p.Reconciles, p.Failed, p.Keys, p.Activated, p.Released, p.Owns, p.Fences, end)
	}
	if len(r.Unowned) > 0 {
		fmt.Fprintln(t, "\nUNOWNED AFTER\tCOUNT\tP50\tP99\tMAX\tTO THE END")
		for _, cause := range slices.Sorted(maps.Keys(r.Unowned)) {
			d := r.Unowned[cause]
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%d\n", cause, d.Count, round(d.P50), round(d.P99), round(d.Max), d.Open)
		}
	}
	_ = t.Flush()
	fmt.Fprintf(&b, "\n%6d  findings that must not occur\n%s%s", len(r.Findings), audit.List(r.Findings), audit.List(r.VersionDrops))
	return b.String()
}

// round rounds to milliseconds, or below a second to microseconds.
func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// eventually waits until f returns nil, and fails the test after a timeout.
func (w *harness) eventually(what string, f func(context.Context) error) {
	w.t.Helper()
	if err := w.plane.eventually(w.t.Context(), f); err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}

// sync waits until everything that has happened so far is in the history.
func (w *harness) sync() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), silence)
	defer cancel()
	if err := w.log.Sync(ctx); err != nil {
		w.t.Fatal(err)
	}
}

func mustClient(t testing.TB, config *rest.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
