// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package foos

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	client "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/typed/samplecontroller/v1alpha1"
)

type listed struct {
	client.FooInterface
	v1alpha1.FooList
}

func (l listed) List(context.Context, metav1.ListOptions) (*v1alpha1.FooList, error) {
	return &l.FooList, nil
}

func TestStateFindsWhatIsBehind(t *testing.T) {
	foo := func(name string, generation, observed int64) (f v1alpha1.Foo) {
		f.Name, f.Generation, f.Status.ObservedGeneration = name, generation, observed
		return f
	}
	f := Foos{listed{nil, v1alpha1.FooList{Items: []v1alpha1.Foo{foo("a", 3, 3), foo("b", 2, 1), foo("c", 1, 0)}}}, "ns"}
	versions, behind, err := f.State(t.Context())
	if err != nil || versions["ns/a"] != "3" || versions["ns/b"] != "2" || versions["ns/c"] != "1" || !slices.Equal(behind, []string{"b", "c"}) {
		t.Errorf("versions %v, behind %v, error %v", versions, behind, err)
	}
}

func TestLoadCountsChangesAtTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int64
		stop := Load(t.Context(), 30, func(_ context.Context, n int) error {
			running.Add(1)
			defer running.Add(-1)
			time.Sleep(time.Millisecond)
			if n%10 == 0 {
				return errors.New("refused")
			}
			return nil
		})
		time.Sleep(10*time.Second + time.Millisecond/2)
		if changes := stop(); changes < 265 || changes > 271 || running.Load() != 0 {
			t.Errorf("%d of about 300 changes succeeded, want 270; %d are in progress", changes, running.Load())
		}
	})
}
