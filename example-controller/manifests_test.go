// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/tom-ludwig/operator-scaling/example-controller/operator"
	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/shard"
)

// manifest returns the first object of the kind in a file.
func manifest(t *testing.T, file, kind string) *unstructured.Unstructured {
	t.Helper()
	all := manifestsOf(t, file, kind)
	if len(all) == 0 {
		t.Fatalf("%s: no %s", file, kind)
	}
	return all[0]
}

// manifestsOf returns the objects of the kind in a file.
func manifestsOf(t *testing.T, file, kind string) (all []*unstructured.Unstructured) {
	t.Helper()
	content, err := os.Open(filepath.Join("manifests", file))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = content.Close() }()
	for decoder := yaml.NewYAMLOrJSONDecoder(content, 4096); ; {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if object.GetKind() == kind {
			all = append(all, object)
		}
	}
}

// The CRD is written by hand: its fields must be those of the Go types.
func TestCRDHasTheFieldsOfTheTypes(t *testing.T) {
	crd := manifest(t, "crd.yaml", "CustomResourceDefinition")
	if group, _, _ := unstructured.NestedString(crd.Object, "spec", "group"); group != v1alpha1.GroupName {
		t.Errorf("group %q, want %q", group, v1alpha1.GroupName)
	}
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil || len(versions) != 1 {
		t.Fatalf("%d versions (%v), want 1", len(versions), err)
	}
	version := versions[0].(map[string]any)
	if version["name"] != v1alpha1.SchemeGroupVersion.Version {
		t.Errorf("version %q, want %q", version["name"], v1alpha1.SchemeGroupVersion.Version)
	}
	schema, _, err := unstructured.NestedMap(version, "schema", "openAPIV3Schema")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path []string
		of   reflect.Type
	}{
		{[]string{"spec"}, reflect.TypeFor[v1alpha1.FooSpec]()},
		{[]string{"status"}, reflect.TypeFor[v1alpha1.FooStatus]()},
		{[]string{"status", "conditions"}, reflect.TypeFor[metav1.Condition]()},
	} {
		at := schema
		for _, name := range test.path {
			properties, ok := at["properties"].(map[string]any)
			if !ok {
				properties = at["items"].(map[string]any)["properties"].(map[string]any)
			}
			at = properties[name].(map[string]any)
		}
		properties, ok := at["properties"].(map[string]any)
		if !ok {
			properties = at["items"].(map[string]any)["properties"].(map[string]any)
		}
		var got, want []string
		for name := range properties {
			got = append(got, name)
		}
		for i := range test.of.NumField() {
			name, _, _ := strings.Cut(test.of.Field(i).Tag.Get("json"), ",")
			want = append(want, name)
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-types +CRD):\n%s", strings.Join(test.path, "."), diff)
		}
	}
}

// The Deployment's flags are valid, and it gives Pods their identity and enough time to stop.
func TestDeploymentManifest(t *testing.T) {
	var deployment appsv1.Deployment
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(manifest(t, "deployment.yaml", "Deployment").Object, &deployment, true); err != nil {
		t.Fatal(err)
	}
	pod := deployment.Spec.Template.Spec
	container := pod.Containers[0]
	var o operator.Options
	if err := o.Parse(flag.NewFlagSet("", flag.ContinueOnError), container.Args); err != nil {
		t.Fatal(err)
	}
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; grace < o.Shard.DrainGrace+o.Shard.DrainTimeout+5*time.Second {
		t.Errorf("terminationGracePeriodSeconds is %v, with a drain timeout of %v", grace, o.Shard.DrainTimeout)
	}
	identity := map[string]string{}
	for _, env := range container.Env {
		identity[env.Name] = env.ValueFrom.FieldRef.FieldPath
	}
	want := map[string]string{shard.EnvPodName: "metadata.name", shard.EnvPodNamespace: "metadata.namespace", shard.EnvPodUID: "metadata.uid"}
	if diff := cmp.Diff(want, identity); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	for _, probe := range []string{container.ReadinessProbe.HTTPGet.Path, container.LivenessProbe.HTTPGet.Path} {
		if probe != "/readyz" && probe != "/healthz" {
			t.Errorf("a probe uses %s", probe)
		}
	}
}

// into converts a manifest, and fails on fields that the type does not have.
func into(t *testing.T, object *unstructured.Unstructured, to any) {
	t.Helper()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, to, true); err != nil {
		t.Fatalf("%s: %v", object.GetName(), err)
	}
}

// The policies match what the controller writes, with the names that the code uses.
func TestFencingManifest(t *testing.T) {
	user := "system:serviceaccount:" + manifest(t, "namespace.yaml", "Namespace").GetName() + ":" + manifest(t, "rbac.yaml", "ServiceAccount").GetName()
	field, _ := reflect.TypeFor[v1alpha1.FooStatus]().FieldByName("Token")
	statusToken, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	type rule struct {
		Group, Version, Resource string
		Operations               []admissionv1.OperationType
		token                    string // its path, in CEL
	}
	want := []rule{
		{
			appsv1.SchemeGroupVersion.Group, appsv1.SchemeGroupVersion.Version, "deployments",
			[]admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
			"metadata.annotations['" + shard.AnnotationToken + "']",
		},
		{
			v1alpha1.SchemeGroupVersion.Group, v1alpha1.SchemeGroupVersion.Version, "foos/status",
			[]admissionv1.OperationType{admissionv1.Update},
			"status." + statusToken,
		},
	}
	policies := manifestsOf(t, "fencing.yaml", "ValidatingAdmissionPolicy")
	bindings := manifestsOf(t, "fencing.yaml", "ValidatingAdmissionPolicyBinding")
	if len(policies) != len(want) || len(bindings) != len(want) {
		t.Fatalf("%d policies and %d bindings, want %d each", len(policies), len(bindings), len(want))
	}
	for i, want := range want {
		var policy admissionv1.ValidatingAdmissionPolicy
		var binding admissionv1.ValidatingAdmissionPolicyBinding
		into(t, policies[i], &policy)
		into(t, bindings[i], &binding)
		if binding.Spec.PolicyName != policy.Name || !slices.Equal(binding.Spec.ValidationActions, []admissionv1.ValidationAction{admissionv1.Deny}) {
			t.Errorf("%s: the binding is for %s, to %v", policy.Name, binding.Spec.PolicyName, binding.Spec.ValidationActions)
		}
		if *policy.Spec.FailurePolicy != admissionv1.Fail {
			t.Errorf("%s: failurePolicy is %s", policy.Name, *policy.Spec.FailurePolicy)
		}
		rules := policy.Spec.MatchConstraints.ResourceRules
		if len(rules) != 1 {
			t.Fatalf("%s: %d rules, want 1", policy.Name, len(rules))
		}
		got := rule{rules[0].APIGroups[0], rules[0].APIVersions[0], rules[0].Resources[0], rules[0].Operations, want.token}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(rule{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", policy.Name, diff)
		}
		if conditions := policy.Spec.MatchConditions; len(conditions) != 1 || conditions[0].Expression != "request.userInfo.username == '"+user+"'" {
			t.Errorf("%s is for %v, want %s", policy.Name, conditions, user)
		}
		for _, variable := range policy.Spec.Variables {
			of := map[string]string{"token": "object.", "before": "oldObject."}[variable.Name]
			if of == "" || !strings.Contains(variable.Expression, of+want.token) {
				t.Errorf("%s: %s does not come from %s%s: %s", policy.Name, variable.Name, of, want.token, variable.Expression)
			}
		}
	}
	if text, err := os.ReadFile(filepath.Join("manifests", "kustomization.yaml")); err != nil || !strings.Contains(string(text), "\n# - fencing.yaml\n") {
		t.Errorf("the kustomization does not mention fencing.yaml as an option (%v)", err)
	}
}
