// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is version v1alpha1 of the samplecontroller.example.dev API: the Foo custom resource of the example
// controller. The CustomResourceDefinition in example-controller/manifests/crd.yaml describes the same types and is
// written by hand. A test of the example compares the two as far as possible.
//
// +k8s:deepcopy-gen=package
// +groupName=samplecontroller.example.dev
package v1alpha1
