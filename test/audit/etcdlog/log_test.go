// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package etcdlog

import (
	"bytes"
	"encoding/json"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
)

func event(key string, value []byte) *clientv3.Event {
	e := &clientv3.Event{}
	alloc(&e.Kv)
	e.Kv.Key, e.Kv.Value, e.Kv.ModRevision = []byte(key), value, 7
	return e
}

func alloc[T any](p **T) { *p = new(T) }

// The API server stores Leases as protobuf and custom resources as JSON.
func TestStoredObjectsAreDecoded(t *testing.T) {
	holder := "op-0_1"
	lease := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}}
	lease.APIVersion, lease.Kind = "coordination.k8s.io/v1", "Lease"
	var stored bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(lease, &stored); err != nil {
		t.Fatal(err)
	}
	leases := stream[coordinationv1.Lease]{prefix: "/registry/leases/ns/"}
	if err := leases.take(event("/registry/leases/ns/op-0", stored.Bytes())); err != nil {
		t.Fatal(err)
	}
	if v := leases.all[0]; v.Name != "op-0" || *v.Object.Spec.HolderIdentity != holder || v.Object.ResourceVersion != "7" {
		t.Errorf("a Lease: %+v", v)
	}

	foo := &v1alpha1.Foo{Status: v1alpha1.FooStatus{Member: "op-0"}}
	foo.APIVersion, foo.Kind = v1alpha1.SchemeGroupVersion.String(), "Foo"
	text, err := json.Marshal(foo)
	if err != nil {
		t.Fatal(err)
	}
	var foos stream[v1alpha1.Foo]
	if err := foos.take(event("foo", text)); err != nil {
		t.Fatal(err)
	}
	if v := foos.all[0]; v.Object.Status.Member != "op-0" || v.Object.ResourceVersion != "7" {
		t.Errorf("a Foo: %+v", v)
	}
	if err := foos.take(event("foo", []byte("garbage"))); err == nil {
		t.Error("garbage was accepted")
	}
}
