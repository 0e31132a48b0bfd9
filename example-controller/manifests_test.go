// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/shard"
)

// manifest returns the first object of the kind in a file.
func manifest(t *testing.T, file, kind string) *unstructured.Unstructured {
	t.Helper()
	content, err := os.Open(filepath.Join("manifests", file))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = content.Close() }()
	for decoder := yaml.NewYAMLOrJSONDecoder(content, 4096); ; {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			t.Fatalf("%s: no %s", file, kind)
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if object.GetKind() == kind {
			return object
		}
	}
}

// The CRD is written by hand: its fields are those of the Go types.
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

// The Deployment's flags are accepted, it gives Pods their identity, and enough time to stop.
func TestDeploymentManifest(t *testing.T) {
	var deployment appsv1.Deployment
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(manifest(t, "deployment.yaml", "Deployment").Object, &deployment, true); err != nil {
		t.Fatal(err)
	}
	pod := deployment.Spec.Template.Spec
	container := pod.Containers[0]
	o, err := parseOptions(container.Args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; grace < o.drainTimeout+10*time.Second {
		t.Errorf("terminationGracePeriodSeconds is %v, with a drain timeout of %v", grace, o.drainTimeout)
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
			t.Errorf("a probe asks %s", probe)
		}
	}
}
