// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// T2 promises that conditional writes and conflicts are as on a real API server. There, a patch
// without a resourceVersion has no condition: the server applies it again to the newer object.
func TestT2_APatchWithoutAResourceVersionIsNotConditional(t *testing.T) {
	cluster := shardtest.NewCluster()
	if _, err := cluster.Client("a").CoreV1().ConfigMaps("x").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "y"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	var mu sync.Mutex
	conflicts, first := 0, error(nil)
	for _, member := range []string{"a", "b"} {
		client := cluster.Client(member).CoreV1().ConfigMaps("x")
		writers.Go(func() {
			for i := range 500 {
				patch := fmt.Sprintf(`{"data":{%q:"%d"}}`, member, i)
				if _, err := client.Patch(t.Context(), "y", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
					mu.Lock()
					conflicts, first = conflicts+1, err
					mu.Unlock()
				}
			}
		})
	}
	writers.Wait()
	if conflicts > 0 {
		t.Errorf("%d of 1000 patches without a resourceVersion have failed: %v", conflicts, first)
	}
}

// A UID is a condition, too: controllers name it when they adopt or release an object. If an object
// of another UID has that name, the API server answers with a conflict, and the fake must return it.
func TestT2_APatchWithTheUIDOfADeletedObjectIsAConflict(t *testing.T) {
	cluster := shardtest.NewCluster()
	maps := cluster.Client("a").CoreV1().ConfigMaps("x")
	if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "y"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		patch := []byte(`{"metadata":{"uid":"of-the-deleted-one","labels":{"a":"b"}}}`)
		_, err := maps.Patch(context.Background(), "y", types.MergePatchType, patch, metav1.PatchOptions{})
		done <- err
	}()
	select {
	case err := <-done:
		if !apierrors.IsConflict(err) {
			t.Errorf("the patch returned %v, want a conflict", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the patch has not returned")
		if err := cluster.Client("b").CoreV1().ConfigMaps("x").Delete(t.Context(), "y", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		<-done
	}
}
