// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is version v1alpha1 of the samplecontroller.example.dev API: the Foo custom resource of the example
// controller. The types here and the CustomResourceDefinition in example-controller/manifests/crd.yaml say the same
// thing twice, the latter by hand; a test of the example compares what can be compared.
//
// +k8s:deepcopy-gen=package
// +groupName=samplecontroller.example.dev
package v1alpha1
