// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build client_go_037

package shard_test

// The tests of this file use what client-go has since 0.37. hack/test.sh runs them with the newest version.

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard"
)

func TestRunRefusesATypedInformerThatIsWrappedTwice(t *testing.T) {
	client := fake.NewClientset()
	s := shard.NewOrDie(client, shard.Config{Name: "foo", PodName: "foo-0", Namespace: "default"})
	i := shard.WrapInformer(s, informers.NewSharedInformerFactory(client, 0).Core().V1().ConfigMaps().Informer())
	shard.WrapInformer(s, cache.NewTypedSharedIndexInformer[*corev1.ConfigMap](i))
	if err := s.SetupError(); err == nil || !strings.Contains(err.Error(), "use it as it is") {
		t.Errorf("error %v", err)
	}
}
