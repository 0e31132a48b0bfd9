// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

func TestRehearsal(t *testing.T) {
	for name, c := range map[string]struct {
		reconcile     func(seen *sync.Map, cm *corev1.ConfigMap, work *shardtest.Work)
		overlap, lost bool
	}{
		"slow": {reconcile: func(_ *sync.Map, _ *corev1.ConfigMap, work *shardtest.Work) {
			time.Sleep(200 * time.Millisecond)
			work.End(true)
		}},
		"reconciles each object only once": {lost: true, reconcile: func(seen *sync.Map, cm *corev1.ConfigMap, work *shardtest.Work) {
			_, again := seen.LoadOrStore(cm.Name, true)
			work.End(!again)
		}},
		"works on after the fence": {overlap: true, reconcile: func(_ *sync.Map, cm *corev1.ConfigMap, work *shardtest.Work) {
			if work.Member == "op-1" && cm.Data["v"] == "5" { // it is cut off now
				time.Sleep(5 * time.Second)
			}
			work.End(true)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen sync.Map
				err := test(func(cm *corev1.ConfigMap, work *shardtest.Work) { c.reconcile(&seen, cm, work) })
				if errors.Is(err, shardtest.ErrOverlap) != c.overlap || errors.Is(err, shardtest.ErrLost) != c.lost {
					t.Errorf("overlap wanted %v, lost wanted %v, got: %v", c.overlap, c.lost, err)
				}
				if err != nil && !c.overlap && !c.lost {
					t.Error(err)
				}
			})
		})
	}
}

// A member that fails, and a rehearsal without objects, are errors, at once.
func TestRehearsal_ThatCannotRun(t *testing.T) {
	objects := func(int) []runtime.Object { return []runtime.Object{configMap("one", "1")} }
	for want, r := range map[string]shardtest.Rehearsal{
		"member op-0: wrong":    {Objects: objects, Operate: func(context.Context, *shardtest.Member) error { return errors.New("wrong") }},
		"before it was stopped": {Objects: objects, Operate: func(context.Context, *shardtest.Member) error { return nil }},
		"no objects":            {Objects: func(int) []runtime.Object { return nil }},
		"no kind":               {Objects: objects, Scheme: runtime.NewScheme(), Operate: func(ctx context.Context, _ *shardtest.Member) error { <-ctx.Done(); return nil }},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			if err := r.Run(); err == nil || !strings.Contains(err.Error(), want) || time.Since(began) > time.Second {
				t.Errorf("want %q, got after %v: %v", want, time.Since(began), err)
			}
		})
	}
}

// rehearse rehearses the operator of the example. Each call of reconcile is a piece of work.
func rehearse(reconcile func(*shardtest.Member, *corev1.ConfigMap)) error {
	return shardtest.Rehearsal{Objects: configMaps, Operate: func(ctx context.Context, m *shardtest.Member) error {
		return operate(ctx, m.Name, m.Client, func(cm *corev1.ConfigMap) {
			work := m.Begin(cm)
			reconcile(m, cm)
			work.End(true)
		})
	}}.Run()
}

func configMaps(version int) (objects []runtime.Object) {
	for i := range 20 {
		objects = append(objects, configMap(fmt.Sprint("cm-", i), fmt.Sprint(version)))
	}
	return objects
}

// The member that was cut off joins again and works before Run ends. Otherwise a rehearsal does
// not find an operator that fails then.
func TestRehearsal_TheMemberThatWasCutOffJoinsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		incarnations := map[string]bool{}
		if err := rehearse(func(m *shardtest.Member, _ *corev1.ConfigMap) {
			mu.Lock()
			defer mu.Unlock()
			for _, l := range m.Cluster.Leases(metav1.NamespaceAll) {
				if strings.HasSuffix(l.Name, m.Name) && m.Name == "op-1" {
					incarnations[*l.Spec.HolderIdentity] = true
				}
			}
		}); err != nil {
			t.Error(err)
		}
		delete(incarnations, "") // evicted
		if len(incarnations) != 2 {
			t.Errorf("op-1 has worked as %v, want two incarnations", incarnations)
		}
	})
}

// A member that does not join is an error, also if the others do all of the work.
func TestRehearsal_AMemberDoesNotJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := shardtest.Rehearsal{Objects: configMaps, Operate: func(ctx context.Context, m *shardtest.Member) error {
			if m.Name == "op-1" {
				<-ctx.Done()
				return nil
			}
			return operate(ctx, m.Name, m.Client, func(cm *corev1.ConfigMap) { m.Begin(cm).End(true) })
		}}.Run()
		if want := `want ["op-0" "op-1"]`; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %s", err, want)
		}
	})
}

// A Secret and a ConfigMap with the same name are two objects: work on both does not overlap, and work on
// one does not count for the other.
func TestRehearsal_TwoKindsWithTheSameNames(t *testing.T) {
	for _, both := range []bool{true, false} {
		t.Run(fmt.Sprint(both), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				err := shardtest.Rehearsal{
					Operate: func(ctx context.Context, m *shardtest.Member) error {
						return operate(ctx, m.Name, m.Client, func(cm *corev1.ConfigMap) {
							if secret, err := m.Client.CoreV1().Secrets(cm.Namespace).Get(ctx, cm.Name, metav1.GetOptions{}); both && err == nil {
								defer m.Begin(secret).End(true)
							}
							m.Begin(cm).End(true)
						})
					},
					Objects: func(version int) (objects []runtime.Object) {
						for _, cm := range configMaps(version) {
							objects = append(objects, &corev1.Secret{ObjectMeta: cm.(*corev1.ConfigMap).ObjectMeta}, cm)
						}
						return objects
					},
				}.Run()
				if errors.Is(err, shardtest.ErrOverlap) || errors.Is(err, shardtest.ErrLost) == both {
					t.Errorf("works on both kinds: %v: %v", both, err)
				}
				if both && err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A user who applies an object again leaves alone what the operator has written to it.
func TestRehearsal_UsersKeepWhatTheOperatorHasWritten(t *testing.T) {
	const name = "example.com/operator"
	synctest.Test(t, func(t *testing.T) {
		var written sync.Map
		var checked atomic.Int32
		if err := (shardtest.Rehearsal{
			Operate: func(ctx context.Context, m *shardtest.Member) error {
				return operate(ctx, m.Name, m.Client, func(cm *corev1.ConfigMap) {
					defer m.Begin(cm).End(true)
					pods := m.Client.CoreV1().Pods(cm.Namespace)
					pod, err := pods.Get(ctx, cm.Name, metav1.GetOptions{})
					if err != nil {
						return
					}
					defer m.Begin(pod).End(true)
					owner := metav1.OwnerReference{UID: "operator"}
					if _, again := written.Load(cm.Name); again {
						checked.Add(1)
						if fmt.Sprint(pod.Finalizers) != "[user "+name+"]" || len(pod.OwnerReferences) != 1 || pod.Status.Phase != corev1.PodRunning ||
							pod.Labels[name] != "yes" || pod.Annotations[name] != "yes" || pod.Labels["v"] != cm.Data["v"] {
							t.Errorf("at version %s: %v %v", cm.Data["v"], pod.ObjectMeta, pod.Status)
						}
						return
					}
					pod.Finalizers, pod.OwnerReferences = append(pod.Finalizers, name), append(pod.OwnerReferences, owner)
					pod.Labels[name], pod.Annotations = "yes", map[string]string{name: "yes"}
					pod.Status.Phase = corev1.PodRunning
					if _, err := pods.Update(ctx, pod, metav1.UpdateOptions{}); err == nil {
						written.Store(cm.Name, true)
					}
				})
			},
			Objects: func(version int) (objects []runtime.Object) {
				for _, cm := range configMaps(version) {
					pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
						Namespace: "x", Name: cm.(*corev1.ConfigMap).Name, Labels: map[string]string{"v": fmt.Sprint(version)}, Finalizers: []string{"user"},
					}}
					objects = append(objects, pod, cm)
				}
				return objects
			},
		}).Run(); err != nil || checked.Load() < 20 {
			t.Errorf("%d checks, want 20 or more: %v", checked.Load(), err)
		}
	})
}
