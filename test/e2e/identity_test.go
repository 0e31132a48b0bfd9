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
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// A container that is restarted in its Pod takes over the Lease of the container that died
// immediately, and not only when the Lease has expired.
func TestRestartInTheSamePod(t *testing.T) {
	soak(t)
	repeat(t, testRestartInTheSamePod)
}

func testRestartInTheSamePod(t *attempt) {
	const objects = 60
	w := newHarness(t)
	w.setFlag("lease-duration", shard.DefaultLeaseDuration) // long enough to distinguish immediately from later
	w.createFoos(0, objects)
	replicas := w.startMany(0, 2)
	before := w.waitWorked(replicas...)
	stopChurn := w.churn(objects, 20)
	defer stopChurn()

	killed := time.Now()
	replicas[0].Kill()
	again := w.start(replicas[0].Pod())
	after := w.waitPlaced(again, replicas[1])
	took := time.Since(killed)
	figures.add(fmt.Sprintf("kill -9 and restart in the same Pod, Lease duration %v: until it has all partitions again", shard.DefaultLeaseDuration),
		took.Round(10*time.Millisecond).String(), "at once")
	if took > shard.DefaultLeaseDuration-shard.DefaultLeaseDuration/5 {
		t.Againf("the Lease was taken over after %v: no sooner than by waiting", took)
	}
	for partition, owner := range before.owner {
		if after.owner[partition] != owner {
			t.Errorf("partition %d went from %s to %s", partition, owner, after.owner[partition])
			break
		}
	}
	if n := w.metric(replicas[1:], "sharding_evictions_total"); n != 0 {
		t.Errorf("the other member has evicted %v", n)
	}
	stopChurn()
	w.waitWorked(again, replicas[1])
	w.check(true)
	w.stop(again, replicas[1])
}

// Two live processes with one identity: two containers of one Pod, or a misconfiguration.
func TestDuplicateIdentity(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testDuplicateIdentity)
}

func testDuplicateIdentity(t *attempt) {
	duplicate(t, func(*harness) {})
}

// The same name in another Pod: the Pod was force-deleted while its process kept running, and
// was created again on another node.
func TestDuplicateNameInAnotherPod(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testDuplicateName)
}

func testDuplicateName(t *attempt) {
	duplicate(t, func(w *harness) {
		uid := w.pod("op-0")
		if err := w.kube.CoreV1().Pods(w.namespace).Delete(w.t.Context(), "op-0", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
			w.t.Fatal(err)
		}
		if w.pod("op-0") == uid {
			w.t.Fatal("the Pod was not replaced")
		}
	})
}

func duplicate(t *attempt, between func(*harness)) {
	const objects = 30
	w := newHarness(t)
	w.createFoos(0, objects)
	replicas := w.startMany(0, 2)
	w.waitWorked(replicas...)
	first, other := replicas[0], replicas[1]
	between(w)
	second := w.start(first.Pod())

	w.eventually("the second reports that another process is live", func(ctx context.Context) error {
		err := second.Ready(ctx)
		switch {
		case err == nil:
			t.Fatal("the second is ready")
		case errors.Is(err, replica.ErrNotReady) && strings.Contains(err.Error(), "another live process"):
			return nil
		}
		return err
	})
	// For longer than the Lease would last without the first process.
	stopChurn := w.churn(objects, 20)
	for end := time.Now().Add(2 * leaseDuration); time.Now().Before(end); time.Sleep(4 * poll) {
		if err := second.Ready(t.Context()); !errors.Is(err, replica.ErrNotReady) {
			t.Fatalf("the second is ready, or reports another error: %v", err)
		}
		if err := second.Healthy(t.Context()); err != nil {
			t.Fatalf("the second would be restarted, which does not help: %v", err)
		}
	}
	w.waitPlaced(first, other)
	if n := w.starts(func(process, _ string) bool { return process == second.String() }, 0); n != 0 {
		t.Errorf("the second has worked on %d objects", n)
	}
	holders := w.holders(first.Pod())
	if len(holders) != 1 {
		t.Errorf("the Lease was held by %v, want only the first process", holders)
	}

	// When the first process has exited, the second takes over.
	began := time.Now()
	w.stop(first)
	w.waitPlaced(second, other)
	figures.add("a second process of one identity, after the first has stopped: until it has joined", time.Since(began).Round(10*time.Millisecond).String(), "")
	stopChurn()
	w.waitWorked(second, other)
	w.check(true)
	w.stop(second, other)
}

// holders returns the holders of a Pod's Lease so far, in order.
func (w *harness) holders(pod string) []string {
	w.t.Helper()
	w.sync()
	var holders []string
	for _, v := range w.log.Lease(w.leaseName(pod)) {
		if v.Object == nil {
			continue
		}
		decoded, err := inspect.Decode(v.Object, w.ring)
		if err != nil || decoded.Void() {
			continue
		}
		if n := len(holders); n == 0 || holders[n-1] != decoded.Holder {
			holders = append(holders, decoded.Holder)
		}
	}
	return holders
}

// The owner of a Lease is its Pod, so that the Lease is deleted with the Pod in any case.
// Without a UID there is no owner reference, and everything else works.
func TestLeaseBelongsToThePod(t *testing.T) {
	soak(t)
	repeat(t, testLeaseBelongsToThePod)
}

func testLeaseBelongsToThePod(t *attempt) {
	w := newHarnessOn(t, ownPlane(t, controlplane.Options{GarbageCollector: true}))
	collector := w.plane.cp.GarbageCollector
	collector.Kill() // until a Lease must be deleted
	owned := w.start("with-uid")
	free := w.start("without-uid", func(c *replica.Config) { c.PodUID = "" }, func(c *replica.Config) { c.Pod = "no-pod-of-that-name" })
	w.waitPlaced(owned, free)
	leases := w.kube.CoordinationV1().Leases(w.namespace)

	l, err := leases.Get(t.Context(), w.leaseName(owned.Pod()), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: owned.Pod(), UID: w.pod(owned.Pod())}
	if len(l.OwnerReferences) != 1 || l.OwnerReferences[0] != want {
		t.Errorf("the Lease of %s has the owner references %v, want %v", owned, l.OwnerReferences, want)
	}
	if l.Labels[inspect.LabelRing] != w.ring {
		t.Errorf("the Lease of %s has the labels %v", owned, l.Labels)
	}
	l, err = leases.Get(t.Context(), w.leaseName(free.Pod()), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.OwnerReferences) != 0 {
		t.Errorf("the Lease of %s has the owner references %v, want none", free, l.OwnerReferences)
	}

	// The Pod exists, but POD_UID is not set: the member reads the Pod once.
	w.pod("read")
	read := w.start("read", func(c *replica.Config) { c.PodUID = "" })
	w.waitPlaced(owned, free, read)
	if l, err = leases.Get(t.Context(), w.leaseName("read"), metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(l.OwnerReferences) != 1 || l.OwnerReferences[0].UID != w.pod("read") {
		t.Errorf("the Lease of %s has the owner references %v, want the Pod's", read, l.OwnerReferences)
	}

	// The garbage collector deletes the Lease of a deleted Pod. The other members count the
	// Lease for as long as it might have been held.
	owned.Kill()
	if err := w.kube.CoreV1().Pods(w.namespace).Delete(t.Context(), owned.Pod(), metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	if err := collector.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.waitPlaced(free, read)
	w.eventually("the Lease of a deleted Pod is deleted", func(ctx context.Context) error {
		_, err := leases.Get(ctx, w.leaseName(owned.Pod()), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it still exists: %w", errOr(err, "found"))
	})
	w.check(false)
	w.stop(free, read)
	for _, p := range []*replica.Process{free, read} {
		if strings.Contains(p.Tail(1000), "panic") {
			t.Errorf("%s has panicked", p)
		}
	}
}

const annotations = "operator-scaling.tom-ludwig.github.io/" // prefix of the annotations of a record

// garbage creates an invalid Lease.
func (w *harness) garbage(name string, change func(*coordinationv1.Lease)) *coordinationv1.Lease {
	w.t.Helper()
	holder, seconds, now := "ghost_1", int32(leaseDuration/time.Second), metav1.NowMicro()
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: w.namespace,
			Labels:      map[string]string{inspect.LabelRing: w.ring},
			Annotations: map[string]string{annotations + "protocol": "1", annotations + "member": "ghost", annotations + "phase": "draining"},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}
	change(l)
	if l.Annotations != nil {
		l.Annotations[inspect.AnnotationChecksum] = inspect.Checksum(l)
	}
	created, err := w.kube.CoordinationV1().Leases(l.Namespace).Create(w.t.Context(), l, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return created
}

// Leases that do not belong to the ring are counted and not touched. Invalid Leases of the
// ring are counted, and treated as claiming everything until they have expired. Work
// continues.
func TestGarbageLeases(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testGarbageLeases)
}

func testGarbageLeases(t *attempt) {
	const objects = 60
	w := newHarness(t)
	w.createFoos(0, objects)
	replicas := w.startMany(0, 2)
	before := w.waitWorked(replicas...)
	stopChurn := w.churn(objects, 20)
	defer stopChurn()

	// Leases that do not belong to this ring: they must not be touched.
	elsewhere := w.withRing("elsewhere") // for its namespace
	left := []*coordinationv1.Lease{
		w.garbage("no-label", func(l *coordinationv1.Lease) { l.Labels = nil }),
		w.garbage("foreign-label", func(l *coordinationv1.Lease) { l.Labels[inspect.LabelRing] = "another" }),
		w.garbage("no-record", func(l *coordinationv1.Lease) { l.Annotations = nil }),
		w.garbage("another-namespace", func(l *coordinationv1.Lease) {
			l.Namespace = elsewhere.namespace
			l.Annotations[annotations+"phase"] = "active"
		}),
	}
	// Leases of this ring with values that cannot be read: treated as claiming everything.
	w.garbage("no-renew-time", func(l *coordinationv1.Lease) { l.Spec.RenewTime = nil })
	w.garbage("garbage-seq", func(l *coordinationv1.Lease) { l.Annotations[annotations+"seq"] = "x" })
	began := time.Now()
	blocking := w.garbage("garbage-claims", func(l *coordinationv1.Lease) {
		seconds := int32(2 * leaseDuration / time.Second)
		l.Spec.LeaseDurationSeconds = &seconds
		l.Annotations[annotations+"phase"] = "active"
		l.Annotations[annotations+"claims"] = "xxh3/name/509/20/1.25/0000:!!!!"
	})
	w.eventually("the Leases are counted", func(ctx context.Context) error {
		for _, r := range replicas {
			for _, kind := range []string{"foreign", "malformed"} {
				if n, err := r.Metric(ctx, "sharding_lease_faults_total", `kind="`+kind+`"`); err != nil || n == 0 {
					return fmt.Errorf("%s did not count any Lease that is %s (%v)", r, kind, err)
				}
			}
		}
		return nil
	})
	// Members keep what they have.
	for _, r := range replicas {
		report, err := r.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := before.partitions / 4; report.States["active"] < want {
			t.Errorf("%s has %d active partitions after it saw the garbage", r, report.States["active"])
		}
	}
	// A new member gets nothing until the Leases that claim everything have expired.
	added := w.startMany(2, 3)[0]
	all := append(append([]*replica.Process{}, replicas...), added)
	w.waitPlaced(all...)
	blocked := time.Since(began)
	if blocked < 2*leaseDuration {
		t.Errorf("the new member had everything after %v: it did not wait %[2]v for a Lease that claims everything", blocked, 2*leaseDuration)
	}
	figures.add(fmt.Sprintf("invalid Leases that claim everything for %v and 15 s: blocked new members for", 2*leaseDuration), blocked.Round(10*time.Millisecond).String(), "")

	stopChurn()
	w.waitWorked(all...)
	w.check(true)
	for _, r := range all {
		if r.Ended() {
			t.Errorf("%s has ended", r)
		}
	}
	w.eventually("Leases that were treated as members are deleted", func(ctx context.Context) error {
		leases, err := w.leases(ctx)
		if err == nil && len(leases) != len(all) {
			err = fmt.Errorf("there are %d Leases", len(leases))
		}
		return err
	})
	evicted := false
	for _, v := range w.log.Lease(blocking.Name) {
		evicted = evicted || v.Object != nil && v.Object.Annotations[annotations+"evicted-by"] != ""
	}
	if !evicted {
		t.Errorf("Lease %s was deleted without being voided first", blocking.Name)
	}
	for _, l := range left {
		now, err := w.kube.CoordinationV1().Leases(l.Namespace).Get(t.Context(), l.Name, metav1.GetOptions{})
		if err != nil {
			t.Errorf("a Lease that does not belong to the ring: %v", err)
		} else if now.ResourceVersion != l.ResourceVersion {
			t.Errorf("Lease %s, which does not belong to the ring, was changed", l.Name)
		}
	}

	// Leases that were edited, and of whose holders no member knows the duration: they block
	// for an hour. Members keep what they have.
	w.garbage("no-holder", func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil })
	w.garbage("no-duration", func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = nil })
	w.garbage("no-spec", func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{} })
	w.garbage("later-protocol", func(l *coordinationv1.Lease) { l.Annotations[annotations+"protocol"] = "99" })
	w.garbage("garbage", func(l *coordinationv1.Lease) {
		for _, name := range []string{"phase", "claims", "seq", "parameters", "tombstones", "pod-uid", "member"} {
			l.Annotations[annotations+name] = "\x7f{]:/" + strings.Repeat("9", 1000)
		}
	})
	time.Sleep(2 * leaseDuration)
	for _, r := range all {
		if report, err := r.Report(t.Context()); err != nil || report.States["active"] < before.partitions/6 {
			t.Errorf("%s has %d active partitions after it saw Leases that were edited (%v)", r, report.States["active"], err)
		}
	}
	w.stop(all...)
}

// If a Lease with the member's name exists that does not belong to the ring, the replica does
// not touch it: it exits and logs the reason.
func TestNameOfTheLeaseIsTaken(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testNameOfTheLeaseIsTaken)
}

func testNameOfTheLeaseIsTaken(t *attempt) {
	w := newHarness(t)
	taken := w.garbage(w.leaseName("op-0"), func(l *coordinationv1.Lease) { l.Labels, l.Annotations = nil, nil })
	p := w.start("op-0")
	if code := w.waitExit(p); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if log := p.Tail(1000); !strings.Contains(log, taken.Name) || !strings.Contains(log, "not a Lease of this ring") {
		t.Errorf("the log does not report the reason:\n%s", log)
	}
	now, err := w.kube.CoordinationV1().Leases(w.namespace).Get(t.Context(), taken.Name, metav1.GetOptions{})
	if err != nil || now.ResourceVersion != taken.ResourceVersion {
		t.Errorf("the Lease was touched (%v)", err)
	}
}

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
	stranger := w.plane.cp.User("stranger-to-" + w.namespace)
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
	clerk := w.plane.cp.ServiceAccount(w.namespace, "clerk")
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

	account := w.plane.cp.ServiceAccount(w.namespace, "foo-operator")
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
