// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest_test

import (
	"errors"
	"fmt"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}, Data: map[string]string{"v": value}}
}

func version(t *testing.T, obj metav1.Object) uint64 {
	t.Helper()
	v, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestT2_MembersShareObjects(t *testing.T) {
	cluster := shardtest.NewCluster()
	a := cluster.Client("a", configMap("one", "1")).CoreV1().ConfigMaps("x")
	b := cluster.Client("b", configMap("one", "ignored")).CoreV1().ConfigMaps("x")

	first, err := b.Get(t.Context(), "one", metav1.GetOptions{})
	if err != nil || first.Data["v"] != "1" || first.UID == "" {
		t.Fatalf("%v: %v", err, first)
	}
	changed := first.DeepCopy()
	changed.Data["v"] = "2"
	second, err := b.Update(t.Context(), changed, metav1.UpdateOptions{})
	if err != nil || version(t, second) <= version(t, first) || second.UID != first.UID {
		t.Errorf("update: %v, %v after %v", err, second, first)
	}
	if same, err := a.Update(t.Context(), second, metav1.UpdateOptions{}); err != nil || same.ResourceVersion != second.ResourceVersion {
		t.Errorf("an update that changes nothing: %v, version %s after %s", err, same.ResourceVersion, second.ResourceVersion)
	}
	if _, err := a.Update(t.Context(), first, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an update of an old version: %v", err)
	}
	patched, err := a.Patch(t.Context(), "one", types.MergePatchType, []byte(`{"data":{"v":"3"}}`), metav1.PatchOptions{})
	if err != nil || patched.Data["v"] != "3" || version(t, patched) <= version(t, second) {
		t.Errorf("patch: %v, %v", err, patched)
	}
	if got, _ := b.Get(t.Context(), "one", metav1.GetOptions{}); got.ResourceVersion != patched.ResourceVersion {
		t.Errorf("the patch returned version %s, stored is %s", patched.ResourceVersion, got.ResourceVersion)
	}
	old := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &first.ResourceVersion}}
	if err := a.Delete(t.Context(), "one", old); !apierrors.IsConflict(err) {
		t.Errorf("a deletion of an old version: %v", err)
	}
	if got := cluster.Versions("configmaps"); len(got) != 1 || got["x/one"] != patched.ResourceVersion {
		t.Errorf("versions: %v", got)
	}
	if err := a.Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := b.Get(t.Context(), "one", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a read of a deleted object: %v", err)
	}
}

func TestT2_ListsAndWatchesFit(t *testing.T) {
	cluster := shardtest.NewCluster()
	a, b := cluster.Client("a").CoreV1(), cluster.Client("b").CoreV1()
	labelled := configMap("one", "1")
	labelled.Labels = map[string]string{"app": "x"}
	if _, err := a.ConfigMaps("x").Create(t.Context(), labelled, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Secrets("x").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "one"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err := b.ConfigMaps("").List(t.Context(), metav1.ListOptions{LabelSelector: "app=x"})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%v: %v", err, list)
	}
	// Between the list and the watch: changes, one of which ends the match.
	if _, err := a.ConfigMaps("x").Create(t.Context(), configMap("two", "1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ConfigMaps("x").Update(t.Context(), configMap("one", "2"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := a.ConfigMaps("x").Delete(t.Context(), "two", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for selector, want := range map[string]string{"": "ADDED two, MODIFIED one, DELETED two, ", "app=x": "DELETED one, "} {
		w, err := b.ConfigMaps("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion, LabelSelector: selector})
		if err != nil {
			t.Fatal(err)
		}
		got, last := "", version(t, &metav1.ObjectMeta{ResourceVersion: list.ResourceVersion})
		for len(w.ResultChan()) > 0 {
			event := <-w.ResultChan()
			cm := event.Object.(*corev1.ConfigMap)
			got += fmt.Sprintf("%s %s, ", event.Type, cm.Name)
			if v := version(t, cm); v <= last {
				t.Errorf("version %d after %d", v, last)
			} else {
				last = v
			}
		}
		if w.Stop(); got != want {
			t.Errorf("selector %q: watched %s, want %s", selector, got, want)
		}
	}
}

func TestShare(t *testing.T) {
	cluster := shardtest.NewCluster()
	cluster.Client("a", configMap("one", "1"))
	own := fake.NewClientset() // stands for the clientset of a custom resource
	cluster.Share("b", &own.Fake, scheme.Scheme)
	if _, err := own.CoreV1().ConfigMaps("x").Get(t.Context(), "one", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	cluster.Break("b", shardtest.Unreachable)
	if _, err := own.CoreV1().ConfigMaps("x").Get(t.Context(), "one", metav1.GetOptions{}); !errors.Is(err, shardtest.ErrFault) {
		t.Errorf("a read of a member that is cut off: %v", err)
	}
	if _, err := own.CoreV1().ConfigMaps("x").Watch(t.Context(), metav1.ListOptions{}); !errors.Is(err, shardtest.ErrFault) {
		t.Errorf("a watch of a member that is cut off: %v", err)
	}
	cluster.Break("b", shardtest.LostAnswer)
	if _, err := own.CoreV1().ConfigMaps("x").Create(t.Context(), configMap("two", "1"), metav1.CreateOptions{}); !errors.Is(err, shardtest.ErrFault) || cluster.Versions("configmaps")["x/two"] == "" {
		t.Errorf("a write whose response is lost: %v", err)
	}
}
