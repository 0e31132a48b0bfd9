// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
	foosv1alpha1 "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/typed/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// The ServiceAccount to which the policies apply. Its name is that of the manifests in each
// namespace, so that they can be applied unchanged; no other test uses it.
const operatorNamespace, operatorAccount = "foo-operator", "foo-operator"

// refused is part of the error message when a policy refuses a request.
const refused = "denied request"

// wantRefused fails the test unless a policy has refused a request with the text.
func wantRefused(t *attempt, what string, err error, text string) {
	t.Helper()
	if err == nil || !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), refused) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want that it is refused with %q", what, err, text)
	}
}

// refusals returns the lines of the replicas' logs about refused requests.
func (w *harness) refusals() (lines []string) {
	w.t.Helper()
	for _, r := range w.all() {
		text, err := os.ReadFile(r.LogFile())
		if err != nil {
			w.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, refused) || strings.Contains(strings.ToLower(line), "forbidden") {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// tokens returns the tokens of a Foo's status and of its Deployment, 0 for none.
func (w *harness) tokens(ctx context.Context, name string) (status, deployment int64, err error) {
	foo, err := w.foos.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return 0, 0, err
	}
	d, err := w.kube.AppsV1().Deployments(w.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return 0, 0, err
	}
	status, _ = strconv.ParseInt(foo.Status.Token, 10, 64)
	deployment, _ = strconv.ParseInt(d.Annotations[shard.AnnotationToken], 10, 64)
	return status, deployment, nil
}

// waitRepaired waits until the owner has set the replicas of a Deployment as in its Foo, and
// a token of at least the given value.
func (w *harness) waitRepaired(name string, atLeast int64) {
	w.t.Helper()
	w.eventually("Deployment "+name+" is repaired", func(ctx context.Context) error {
		d, err := w.kube.AppsV1().Deployments(w.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		foo, err := w.foos.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		token, err := strconv.ParseInt(d.Annotations[shard.AnnotationToken], 10, 64)
		if err != nil || *d.Spec.Replicas != *foo.Spec.Replicas || token < atLeast {
			return fmt.Errorf("it has %d replicas with %v, want %d with a token of at least %d", *d.Spec.Replicas, d.Annotations, *foo.Spec.Replicas, atLeast)
		}
		return nil
	})
}

// gate holds mutating requests until it is opened.
type gate struct {
	next   http.RoundTripper
	arrive chan struct{}
	open   chan struct{}
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		g.arrive <- struct{}{}
		select {
		case <-g.open:
		case <-r.Context().Done():
			return nil, context.Cause(r.Context())
		}
	}
	return g.next.RoundTrip(r)
}

// byHand and byLate are numbers of replicas that no Foo in these tests has.
const byHand, byLate = 500, 600

// late sends requests that the owner of the Foo could send at this moment, but without a
// resourceVersion precondition. The requests are in flight when it returns; they arrive when
// the returned function is called.
func (w *harness) late(config *rest.Config, name string) (arrive func() map[string]error, token int64) {
	w.t.Helper()
	d, err := w.kube.AppsV1().Deployments(w.namespace).Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	if token, err = strconv.ParseInt(d.Annotations[shard.AnnotationToken], 10, 64); err != nil {
		w.t.Fatalf("Deployment %s has no token: %v", name, err)
	}
	d.ResourceVersion, d.Spec.Replicas = "", new(int32(byLate))
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"%d"}},"spec":{"replicas":%d}}`, shard.AnnotationToken, token, byLate)
	statusPatch := fmt.Appendf(nil, `{"status":{"token":"%d","member":"late"}}`, token)

	g := &gate{arrive: make(chan struct{}), open: make(chan struct{})}
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { g.next = next; return g })
	o := w.operator(config)
	deployments := o.deployments.AppsV1().Deployments(w.namespace)
	requests := map[string]func() error{
		"update of the Deployment": func() error {
			_, err := deployments.Update(w.t.Context(), d, metav1.UpdateOptions{})
			return err
		},
		"patch of the Deployment": func() error {
			_, err := deployments.Patch(w.t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		},
		"patch of the status": func() error {
			_, err := o.foos.Patch(w.t.Context(), name, types.MergePatchType, statusPatch, metav1.PatchOptions{}, "status")
			return err
		},
	}
	type answer struct {
		what string
		err  error
	}
	answers := make(chan answer, len(requests))
	for what, send := range requests {
		go func() { answers <- answer{what, send()} }()
		<-g.arrive
	}
	return func() map[string]error {
		close(g.open)
		got := map[string]error{}
		for range requests {
			a := <-answers
			got[a.what] = a.err
		}
		return got
	}, token
}

// ownedBy returns a Foo that a replica owns.
func (w *harness) ownedBy(p placement, r *replica.Process, objects int) string {
	w.t.Helper()
	for i := range objects {
		if name := fmt.Sprintf("foo-%d", i); p.of(w.key(name)) == r.Pod() {
			return name
		}
	}
	w.t.Fatalf("%s owns nothing", r)
	return ""
}

// The policies of the manifests refuse a write that was delayed until another replica owned
// the object, and they refuse nothing else.
func TestFencing(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testFencing)
}

func testFencing(t *attempt) {
	const objects = 60
	w := newHarness(t)
	w.allow()
	account := w.plane.cp.ServiceAccount(operatorNamespace, operatorAccount)
	account.QPS, account.Burst = 1000, 1000
	o := w.operator(account)
	if _, err := w.plane.cp.Kubectl(t.Context(), "apply", "--server-side", "--filename", manifests("fencing.yaml")); err != nil {
		t.Fatal(err)
	}
	remove := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		_, err := w.plane.cp.Kubectl(ctx, "delete", "--ignore-not-found", "--filename", manifests("fencing.yaml"))
		return err
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	// The policies only check a status if its Foo exists, and an update if its Deployment
	// exists. Here, a user to whom the policies do not apply creates the objects.
	w.createFoos(0, objects)
	w.eventually("the policies are in force", func(ctx context.Context) error {
		_, err := o.deployments.AppsV1().Deployments(w.namespace).Create(ctx, probe(), metav1.CreateOptions{DryRun: dry})
		if err == nil || !strings.Contains(err.Error(), refused) {
			return fmt.Errorf("a Deployment without a token: %w", errOr(err, "accepted"))
		}
		if err := o.updateStatus("foo-0", "", dry); err == nil || !strings.Contains(err.Error(), refused) {
			return fmt.Errorf("a status without a token: %w", errOr(err, "accepted"))
		}
		return nil
	})

	// Normal operation: objects change while one replica stops, one is killed and one joins.
	allowed := w.as(operatorAccount, account)
	replicas := w.startMany(0, 3, allowed)
	before := w.waitWorked(replicas...)
	lateOf := map[string]func() map[string]error{}
	tokenOf := map[string]int64{}
	for _, r := range replicas[:2] {
		name := w.ownedBy(before, r, objects)
		lateOf[name], tokenOf[name] = w.late(account, name)
	}
	stopChurn := w.churn(objects, 20)
	w.stop(replicas[0])
	w.waitPlaced(replicas[1:]...)
	replicas[1].Kill()
	replicas = append(replicas[2:], w.startMany(3, 4, allowed)...)
	w.waitPlaced(replicas...)
	time.Sleep(leaseDuration / 5) // some changes under the new owners
	t.Logf("%d changes", stopChurn())
	after := w.waitWorked(replicas...)
	for i := range objects {
		name := fmt.Sprintf("foo-%d", i)
		status, deployment, err := w.tokens(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if status == 0 || deployment == 0 || deployment > status {
			t.Errorf("%s has the token %d, its Deployment %d", name, status, deployment)
		}
	}

	for name, arrive := range lateOf {
		old := tokenOf[name]
		if err := w.patchDeployment(name, fmt.Sprintf(`{"spec":{"replicas":%d}}`, byHand)); err != nil {
			t.Fatal(err)
		}
		w.waitRepaired(name, old+1)
		for what, err := range arrive() {
			wantRefused(t, fmt.Sprintf("%s of %s under %d, which is now with %s", what, name, old, after.of(w.key(name))), err, fmt.Sprintf("the token %d is lower than", old))
		}
		w.judge(o, name, old)
	}
	if lines := w.refusals(); len(lines) > 0 {
		t.Errorf("%d requests of replicas were refused, the first: %s", len(lines), lines[0])
	}
	w.check(true)

	w.meddle("foo-7")
	w.waitWorked(replicas...)

	// Without the policies, the same writes are accepted.
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	w.eventually("the policies are no longer in force", func(context.Context) error {
		return errors.Join(o.updateDeployment("foo-7", "1", dry), o.updateStatus("foo-7", "1", dry), o.createDeployment("foo-7", "", dry))
	})
	w.check(true)
	w.stop(replicas...)
}

// judge sends writes that an owner of the Foo may send, and writes that it may not send.
func (w *harness) judge(o operator, name string, old int64) {
	w.t.Helper()
	status, deployment, err := w.tokens(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	for what, write := range map[string]func(name, token string, dryRun []string) error{
		"update of the Deployment": o.updateDeployment, "update of the status": o.updateStatus, "create": o.createDeployment,
	} {
		what = what + " of " + name
		for _, high := range []int64{max(status, deployment), max(status, deployment) + 1, 999_999_999_999_999_999} {
			if err := write(name, strconv.FormatInt(high, 10), dry); err != nil {
				w.t.Errorf("%s with the token %d: %v", what, high, err)
			}
		}
		wantRefused(w.t, what, write(name, "", nil), "the token is missing: the operator must write")
		for _, wrong := range []string{"abc", "-1", "1 ", "1000000000000000000000"} {
			wantRefused(w.t, what, write(name, wrong, nil), `the token "`+wrong+`" is not a number`)
		}
		if !strings.HasPrefix(what, "create") {
			wantRefused(w.t, what, write(name, strconv.FormatInt(old, 10), nil), fmt.Sprintf("the token %d is lower than ", old))
			wantRefused(w.t, what, write(name, "1", nil), "If the present owner is refused, remove")
		}
	}
}

// meddle changes the tokens of a Foo as a human might, and then does what the manifest
// recommends in that case.
func (w *harness) meddle(name string) {
	w.t.Helper()
	_, token, err := w.tokens(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	deployment := func(token string) {
		w.t.Helper()
		if err := w.patchDeployment(name, fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}},"spec":{"replicas":%d}}`, shard.AnnotationToken, token, byHand)); err != nil {
			w.t.Fatal(err)
		}
	}
	status := func(token string) {
		w.t.Helper()
		patch := fmt.Appendf(nil, `{"status":{"token":%s}}`, token)
		if _, err := w.foos.Patch(w.t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			w.t.Fatal(err)
		}
		replicas := 0 // different from the current number, so that the owner writes the status
		if d := w.deployments()[name]; *d.Spec.Replicas == 0 {
			replicas = 1
		}
		if err := w.patchFoo(name, fmt.Sprintf(`{"spec":{"replicas":%d}}`, replicas)); err != nil {
			w.t.Fatal(err)
		}
	}
	written := func() {
		w.t.Helper()
		w.eventually("the status of "+name+" is written", func(ctx context.Context) error {
			foo, err := w.foos.Get(ctx, name, metav1.GetOptions{})
			if err == nil && (foo.Status.ObservedGeneration != foo.Generation || foo.Status.Token == "") {
				err = fmt.Errorf("its generation is %d, its status %+v", foo.Generation, foo.Status)
			}
			return err
		})
	}
	refusedOnce := func(seen int) {
		w.t.Helper()
		w.eventually("the owner of "+name+" is refused", func(context.Context) error {
			if n := len(w.refusals()); n <= seen {
				return fmt.Errorf("%d refusals", n)
			}
			return nil
		})
	}
	kubectl := func(args ...string) {
		w.t.Helper()
		if _, err := w.plane.cp.Kubectl(w.t.Context(), append([]string{"--namespace", w.namespace}, args...)...); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, removed := range []string{`null`, `"nonsense"`} {
		deployment(removed)
		w.waitRepaired(name, token)
		status(removed)
		written()
	}
	if lines := w.refusals(); len(lines) > 0 {
		w.t.Errorf("%d requests of replicas were refused, the first: %s", len(lines), lines[0])
	}
	const high = `"999999999999999999"`
	seen := len(w.refusals())
	deployment(high)
	refusedOnce(seen)
	kubectl("annotate", "deployment", name, shard.AnnotationToken+"-")
	w.waitRepaired(name, token)
	seen = len(w.refusals())
	status(high)
	refusedOnce(seen)
	kubectl("patch", "foo", name, "--subresource=status", "--type=merge", `--patch={"status":{"token":null}}`)
	written()
}

// operator sends requests with the operator's identity.
type operator struct {
	w           *harness
	deployments kubernetes.Interface
	foos        foosv1alpha1.FooInterface
}

func (w *harness) operator(config *rest.Config) operator {
	w.t.Helper()
	foos, err := versioned.NewForConfig(config)
	if err != nil {
		w.t.Fatal(err)
	}
	return operator{w, mustClient(w.t, config), foos.SamplecontrollerV1alpha1().Foos(w.namespace)}
}

// allow grants the operator the permissions that the manifests grant in a cluster, and
// permission to patch, which the example does not need.
func (w *harness) allow() {
	w.t.Helper()
	content, err := os.Open(manifests("rbac.yaml"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = content.Close() }()
	role := rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: operatorAccount}, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{appsv1.GroupName, v1alpha1.GroupName}, Resources: []string{"deployments", "foos/status"}, Verbs: []string{"patch"},
	}}}
	for decoder := yaml.NewYAMLOrJSONDecoder(content, 4096); ; {
		object := unstructured.Unstructured{}
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			w.t.Fatal(err)
		}
		if kind := object.GetKind(); kind == "Role" || kind == "ClusterRole" {
			var rules rbacv1.ClusterRole
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &rules); err != nil {
				w.t.Fatal(err)
			}
			role.Rules = append(role.Rules, rules.Rules...)
		}
	}
	if _, err := w.kube.RbacV1().Roles(w.namespace).Create(w.t.Context(), &role, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	_, err = w.kube.RbacV1().RoleBindings(w.namespace).Create(w.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: operatorAccount},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: operatorAccount},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: operatorAccount, Namespace: operatorNamespace}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
}

// dry makes the API server validate a write without executing it.
var dry = []string{metav1.DryRunAll}

// updateDeployment writes the Deployment unchanged, except for the token; "" for none.
func (o operator) updateDeployment(name, token string, dryRun []string) error {
	d, err := o.w.kube.AppsV1().Deployments(o.w.namespace).Get(o.w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	metav1.SetMetaDataAnnotation(&d.ObjectMeta, shard.AnnotationToken, token)
	if token == "" {
		delete(d.Annotations, shard.AnnotationToken)
	}
	_, err = o.deployments.AppsV1().Deployments(o.w.namespace).Update(o.w.t.Context(), d, metav1.UpdateOptions{DryRun: dryRun})
	return err
}

// createDeployment tries to create a Deployment.
func (o operator) createDeployment(name, token string, dryRun []string) error {
	d, err := o.w.kube.AppsV1().Deployments(o.w.namespace).Get(o.w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	d.ObjectMeta = metav1.ObjectMeta{Name: "another-" + name, Labels: d.Labels}
	if token != "" {
		d.Annotations = map[string]string{shard.AnnotationToken: token}
	}
	_, err = o.deployments.AppsV1().Deployments(o.w.namespace).Create(o.w.t.Context(), d, metav1.CreateOptions{DryRun: dryRun})
	return err
}

// updateStatus writes the status of a Foo unchanged, except for the token.
func (o operator) updateStatus(name, token string, dryRun []string) error {
	foo, err := o.w.foos.Get(o.w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	foo.Status.Token = token
	_, err = o.foos.UpdateStatus(o.w.t.Context(), foo, metav1.UpdateOptions{DryRun: dryRun})
	return err
}

// probe is a Deployment without a token.
func probe() *appsv1.Deployment {
	labels := map[string]string{"probe": "probe"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}}}
	d.Spec.Template.Labels = labels
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "probe", Image: "probe"}}
	return d
}
