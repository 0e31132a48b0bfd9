// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
)

// The workload does not matter here: a container that sleeps.
const (
	workloadName  = "pause"
	workloadImage = "registry.k8s.io/pause:3.10"
)

// fooLabel is on each Deployment and its Pods, with the name of the Foo.
const fooLabel = v1alpha1.GroupName + "/foo"

var kindFoo = v1alpha1.SchemeGroupVersion.WithKind("Foo")

// replicas returns the number of replicas that the Foo specifies.
func replicas(foo *v1alpha1.Foo) int32 {
	if foo.Spec.Replicas == nil {
		return 1
	}
	return *foo.Spec.Replicas
}

// newDeployment returns the Deployment that the Foo specifies. Its controller reference points to the Foo.
func newDeployment(foo *v1alpha1.Foo) *appsv1.Deployment {
	labels := map[string]string{fooLabel: foo.Name}
	count := replicas(foo)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Name:            foo.Spec.DeploymentName,
			Namespace:       foo.Namespace,
			Labels:          labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(foo, kindFoo)},
		},
		Spec: appsv1.DeploymentSpec{
			Replicas: &count,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: workloadName, Image: workloadImage}}},
			},
		},
	}
}

// readiness returns the condition Ready of a Foo whose Deployment has the right number of replicas.
func readiness(foo *v1alpha1.Foo, deployment *appsv1.Deployment) metav1.Condition {
	available, want := deployment.Status.AvailableReplicas, replicas(foo)
	if available < want {
		return metav1.Condition{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonProgressing,
			Message: fmt.Sprintf("%d of %d replicas are available", available, want),
		}
	}
	return metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAvailable,
		Message: fmt.Sprintf("%d replicas are available", available),
	}
}

// settled reports whether the Foo and its Deployment match, so that a reconcile would write nothing.
func settled(foo *v1alpha1.Foo, deployment *appsv1.Deployment) bool {
	return deployment.Spec.Replicas != nil && *deployment.Spec.Replicas == replicas(foo) &&
		deployment.Status.AvailableReplicas == foo.Status.AvailableReplicas
}

// observed holds the fields of a Deployment that a reconcile uses.
type observed struct {
	replicas   *int32
	available  int32
	deleting   bool
	controller *metav1.OwnerReference
}

func observe(deployment *appsv1.Deployment) observed {
	return observed{
		replicas:   deployment.Spec.Replicas,
		available:  deployment.Status.AvailableReplicas,
		deleting:   deployment.DeletionTimestamp != nil,
		controller: metav1.GetControllerOf(deployment),
	}
}
