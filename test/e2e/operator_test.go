// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
	foosv1alpha1 "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/typed/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/shard"
)

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
