// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The conditions of a Foo and their reasons.
const (
	// ConditionReady is True when the Deployment has as many available replicas as the Foo specifies.
	ConditionReady = "Ready"

	// ReasonAvailable goes with Ready=True.
	ReasonAvailable = "DeploymentAvailable"
	// ReasonProgressing goes with Ready=False: the Deployment is correct, but not all its replicas are available yet.
	ReasonProgressing = "DeploymentProgressing"
	// ReasonNameTaken goes with Ready=False: a Deployment of that name exists, and this Foo does not control it.
	ReasonNameTaken = "DeploymentNameTaken"
)

// +genclient
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object

// Foo specifies one Deployment.
type Foo struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   FooSpec   `json:"spec"`
	Status FooStatus `json:"status,omitempty"`
}

// FooSpec is the state that the user wants.
type FooSpec struct {
	// DeploymentName names the Deployment, in the Foo's namespace. It cannot be changed.
	DeploymentName string `json:"deploymentName"`
	// Replicas of the Deployment, 0 to 100; 1 if not set.
	Replicas *int32 `json:"replicas,omitempty"`
}

// FooStatus is what the controller observed and did.
type FooStatus struct {
	// AvailableReplicas of the Deployment.
	AvailableReplicas int32 `json:"availableReplicas"`
	// ObservedGeneration is the generation of the Foo that the rest of the status refers to.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Member is the Pod of the member that last reconciled the Foo.
	Member string `json:"member,omitempty"`
	// Token is the fencing token under which the status was written, a decimal number that increases from owner to owner: see
	// shard.TokenFromContext. It is a string, as in the Deployment's annotation and in the Lease that it comes from.
	Token string `json:"token,omitempty"`
	// Conditions contains Ready.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object

// FooList is a list of Foos.
type FooList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Foo `json:"items"`
}
