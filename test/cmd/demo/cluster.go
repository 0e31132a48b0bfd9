// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/foos"
)

const (
	// hesitation is the time in which a user on a terminal can cancel before the cluster is changed.
	hesitation = 5 * time.Second
	// removalTime is how long a cluster may take to delete a namespace.
	removalTime = 2 * time.Minute
	// label marks what the demo has created. Its value differs in each run.
	label = "operator-scaling-demo"
)

var (
	namespaces = corev1.SchemeGroupVersion.WithResource("namespaces")
	quotas     = corev1.SchemeGroupVersion.WithResource("resourcequotas")
)

// cluster is where the demo runs. The demo touches only one namespace, which it creates, and the CRD if it does not exist.
type cluster struct {
	title      string // its name on the screen
	config     *rest.Config
	kubeconfig string // for the replicas
	namespace  string
	run        string       // the value of the label
	close      func() error // removes what the demo has created
}

// start builds and starts a local control plane.
func (c *cluster) start(ctx context.Context, out *display) error {
	var binary string
	if err := out.task("building etcd and kube-apiserver from source", func() (err error) {
		binary, err = controlplane.Build(ctx, out)
		return err
	}); err != nil {
		return err
	}
	return out.task("starting etcd and kube-apiserver", func() error {
		plane, err := controlplane.Start(ctx, controlplane.Options{Binary: binary})
		if err == nil {
			*c = cluster{"a local control plane", plane.Admin(), plane.Kubeconfig(), "demo", "local", func() error { plane.Stop(); return nil }}
		}
		return err
	})
}

// connect reads the user's kubeconfig, and prints what will be done to the cluster. It does not change anything yet. The copy
// of the kubeconfig for the replicas has only one context, so that switching contexts does not affect them.
func (c *cluster) connect(ctx context.Context, kubeconfig, copied string, out *display) error {
	raw, err := (&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}).Load()
	if err == nil {
		err = errors.Join(clientcmdapi.MinifyConfig(raw), clientcmdapi.FlattenConfig(raw), clientcmd.WriteToFile(*raw, copied))
	}
	if err != nil {
		return fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", copied)
	if err != nil {
		return fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	config.QPS, config.Burst = 100, 200
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	out.progress("connecting to " + config.Host)
	version, err := kube.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("connect to %s (context %s): %w", config.Host, raw.CurrentContext, err)
	}
	run := fmt.Sprintf("%05x", rand.Uint32N(1<<20))
	*c = cluster{"context " + raw.CurrentContext, config, copied, "operator-scaling-demo-" + run, run, c.remove}
	out.say(
		"",
		paint(strong, "The demo will run on your cluster:"),
		"  context    "+raw.CurrentContext,
		"  cluster    "+config.Host+", Kubernetes "+version.GitVersion,
		"  namespace  "+c.namespace+": created, and deleted at the end with everything in it",
		"  CRD        "+foos.CRDName+": installed if missing, and in that case removed at the end",
		paint(faint, "The replicas run on this machine with your credentials, and work only in that"),
		paint(faint, "namespace. A quota in it prevents Pods. The demo touches nothing else."),
		"",
	)
	for left := hesitation; left > 0 && out.size != nil; left -= time.Second {
		out.progress(fmt.Sprintf("starting in %.0f s; press Ctrl-C to cancel", left.Seconds()))
		if err := foos.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// prepare creates the namespace and the CRD. The caller must call close, even after an error.
func (c *cluster) prepare(ctx context.Context) error {
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return err
	}
	namespace := fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: %s}}", c.namespace)
	if err := create(ctx, client.Resource(namespaces), namespace, c.run); err != nil {
		return err
	}
	// The example controller creates Deployments, but the demo does not need hundreds of Pods.
	const noPods = `{apiVersion: v1, kind: ResourceQuota, metadata: {name: no-pods}, spec: {hard: {pods: "0", count/replicasets.apps: "0"}}}`
	if err := create(ctx, client.Resource(quotas).Namespace(c.namespace), noPods, c.run); err != nil {
		return err
	}
	return foos.Install(ctx, c.config, map[string]string{label: c.run})
}

// create creates an object from YAML, with the label.
func create(ctx context.Context, client dynamic.ResourceInterface, text, run string) error {
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), object); err != nil {
		return err
	}
	object.SetLabels(map[string]string{label: run})
	if _, err := client.Create(ctx, object, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return nil
}

// remove deletes what prepare created. It keeps the CRD if other namespaces have Foos.
func (c *cluster) remove() error {
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return err
	}
	unused := func(ctx context.Context) error {
		all, err := client.Resource(foos.Resource).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("keep CRD %s, because it is unknown whether others use it: %w", foos.CRDName, err)
		}
		for _, foo := range all.Items {
			if foo.GetNamespace() != c.namespace {
				return fmt.Errorf("keep CRD %s: Foo %s/%s does not belong to this demo", foos.CRDName, foo.GetNamespace(), foo.GetName())
			}
		}
		return nil
	}
	return errors.Join(remove(client.Resource(foos.CRDs), c.run, unused), remove(client.Resource(namespaces), c.run, nil))
}

// remove deletes the objects with the label, unless check fails, and returns when they are gone.
func remove(client dynamic.ResourceInterface, run string, check func(context.Context) error) error {
	asked := false
	err := wait.PollUntilContextTimeout(context.Background(), 200*time.Millisecond, removalTime, true, func(ctx context.Context) (bool, error) {
		list, err := client.List(ctx, metav1.ListOptions{LabelSelector: label + "=" + run})
		if err != nil || len(list.Items) == 0 || asked {
			return err == nil && len(list.Items) == 0, nil // errors may pass
		}
		if check != nil {
			if err := check(ctx); err != nil {
				return false, err
			}
		}
		asked = true
		for _, o := range list.Items {
			err := client.Delete(ctx, o.GetName(), *metav1.NewPreconditionDeleteOptions(string(o.GetUID())))
			if err != nil && !apierrors.IsNotFound(err) {
				return false, fmt.Errorf("delete %s: %w", o.GetName(), err)
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("objects with the label %s=%s may still exist: %w", label, run, err)
	}
	return nil
}
