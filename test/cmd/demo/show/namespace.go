// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// createNamespace creates a namespace that must not exist yet.
func createNamespace(ctx context.Context, config *rest.Config, name string, labels map[string]string) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	return nil
}

// forbidPods prevents the Deployments that the example controller creates from starting
// Pods: the demo does not need hundreds of Pods.
func forbidPods(ctx context.Context, config *rest.Config, namespace string) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	none := resource.MustParse("0")
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "no-pods"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			corev1.ResourcePods:      none,
			"count/replicasets.apps": none,
		}},
	}
	if _, err := client.CoreV1().ResourceQuotas(namespace).Create(ctx, quota, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("prevent Pods in namespace %s: %w", namespace, err)
	}
	return nil
}

// deleteNamespace deletes a namespace and everything in it if it has the labels, and
// returns when it is gone or ctx ends.
func deleteNamespace(ctx context.Context, config *rest.Config, name string, having map[string]string) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for asked := false; ; {
		namespace, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err == nil && !has(namespace.Labels, having):
			return nil // never created, or not created by this demo
		case err == nil && !asked:
			err = client.CoreV1().Namespaces().Delete(ctx, name, *metav1.NewPreconditionDeleteOptions(string(namespace.UID)))
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("delete namespace %s: %w", name, err)
			}
			asked = true
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("namespace %s still exists (for the reason see kubectl get namespace %s -o yaml): %w", name, name, errors.Join(err, context.Cause(ctx)))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// has reports whether an object has all of the labels.
func has(labels, wanted map[string]string) bool {
	for k, v := range wanted {
		if labels[k] != v {
			return false
		}
	}
	return true
}
