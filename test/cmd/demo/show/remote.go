// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
)

const (
	// hesitation is the time in which the user can still cancel, on a terminal.
	hesitation = 5 * time.Second
	// removalTime is how long a cluster may take to delete a namespace.
	removalTime = 2 * time.Minute
)

// remote is the user's cluster. The demo touches only one namespace, which it creates,
// and the CRD if it does not exist. Everything with its labels was created by it.
type remote struct {
	config    *rest.Config
	namespace string
	labels    map[string]string
}

// connect reads a kubeconfig and prints what will be done to its cluster. It does not
// change anything yet. The copy of the kubeconfig for the replicas has only one context,
// so that switching contexts in the meantime does not affect them.
func connect(ctx context.Context, o options, dir string, out output) (*remote, *cluster, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: o.kubeconfig}
	raw, err := rules.Load()
	if err != nil {
		return nil, nil, fmt.Errorf("read kubeconfig %s: %w", o.kubeconfig, err)
	}
	if o.context != "" {
		raw.CurrentContext = o.context
	}
	if err := clientcmdapi.MinifyConfig(raw); err != nil {
		return nil, nil, fmt.Errorf("kubeconfig %s: %w", o.kubeconfig, err)
	}
	if err := clientcmdapi.FlattenConfig(raw); err != nil {
		return nil, nil, fmt.Errorf("kubeconfig %s: %w", o.kubeconfig, err)
	}
	copied := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*raw, copied); err != nil {
		return nil, nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", copied)
	if err != nil {
		return nil, nil, fmt.Errorf("kubeconfig %s: %w", o.kubeconfig, err)
	}
	config.QPS, config.Burst = 100, 200

	set, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("kubeconfig %s: %w", o.kubeconfig, err)
	}
	out.Progress("connecting to " + config.Host)
	version, err := set.Discovery().ServerVersion()
	out.Progress("")
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s (context %s): %w", config.Host, raw.CurrentContext, err)
	}

	suffix := fmt.Sprintf("%05x", rand.Uint32N(1<<20))
	r := &remote{
		config:    config,
		namespace: "operator-scaling-demo-" + suffix,
		labels:    map[string]string{"app.kubernetes.io/created-by": "operator-scaling-demo", "operator-scaling-demo": suffix},
	}
	out.Say(
		nil,
		text(strong, "The demo will run on your cluster:"),
		text(normal, "  context    %s", raw.CurrentContext),
		text(normal, "  cluster    %s, Kubernetes %s", config.Host, version.GitVersion),
		text(normal, "  namespace  %s: created, and deleted at the end with everything in it", r.namespace),
		text(normal, "  CRD        %s: installed if missing, and in that case removed at the end", crdName),
		text(faint, "The replicas run on this machine with your credentials, and work only in that"),
		text(faint, "namespace. A quota in it prevents Pods. The demo touches nothing else."),
		nil,
	)
	return r, &cluster{
		title:      "context " + raw.CurrentContext,
		config:     config,
		kubeconfig: copied,
		namespace:  r.namespace,
		close:      r.remove,
		byHand:     fmt.Sprintf("kubectl --context %s delete namespace %s", raw.CurrentContext, r.namespace),
	}, nil
}

// hesitate gives time to press Ctrl-C.
func hesitate(ctx context.Context, out output) error {
	defer out.Progress("")
	for left := hesitation; left > 0; left -= time.Second {
		out.Progress(fmt.Sprintf("starting in %.0f s; press Ctrl-C to cancel", left.Seconds()))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
	return nil
}

// prepare creates the namespace and the CRD. The caller must call remove, even after an
// error.
func (r *remote) prepare(ctx context.Context) error {
	if err := createNamespace(ctx, r.config, r.namespace, r.labels); err != nil {
		return err
	}
	if err := forbidPods(ctx, r.config, r.namespace); err != nil {
		return err
	}
	return installCRD(ctx, r.config, r.labels)
}

// remove deletes what prepare created. It keeps the CRD if other namespaces have Foos.
func (r *remote) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removalTime)
	defer cancel()
	client, err := dynamic.NewForConfig(r.config)
	if err != nil {
		return err
	}
	// The CRD first, because deleting a namespace may take long.
	removed := r.removeCRD(ctx, client.Resource(crds))
	return errors.Join(deleteNamespace(ctx, r.config, r.namespace, r.labels), removed, r.awaitCRD(ctx, client.Resource(crds)))
}

// awaitCRD waits until the CRD is gone if it is being deleted.
func (r *remote) awaitCRD(ctx context.Context, client dynamic.ResourceInterface) error {
	for {
		crd, err := client.Get(ctx, crdName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && (crd.GetDeletionTimestamp() == nil || !has(crd.GetLabels(), r.labels)) {
			return nil
		}
		if sleep(ctx, 200*time.Millisecond) != nil {
			return fmt.Errorf("CRD %s still exists: %w", crdName, errors.Join(err, context.Cause(ctx)))
		}
	}
}

// removeCRD deletes the CRD if this demo created it and no other namespace has Foos.
func (r *remote) removeCRD(ctx context.Context, client dynamic.ResourceInterface) error {
	crd, err := client.Get(ctx, crdName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && !has(crd.GetLabels(), r.labels) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check whether CRD %s must be removed: %w", crdName, err)
	}
	set, err := versioned.NewForConfig(r.config)
	if err != nil {
		return err
	}
	list, err := set.SamplecontrollerV1alpha1().Foos(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("keep CRD %s, because it is unknown whether others use it: %w", crdName, err)
	}
	for _, foo := range list.Items {
		if foo.Namespace != r.namespace {
			return fmt.Errorf("keep CRD %s: Foo %s/%s does not belong to this demo", crdName, foo.Namespace, foo.Name)
		}
	}
	err = client.Delete(ctx, crdName, *metav1.NewPreconditionDeleteOptions(string(crd.GetUID())))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove CRD %s: %w", crdName, err)
	}
	return nil
}
