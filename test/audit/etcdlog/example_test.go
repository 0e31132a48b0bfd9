// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package etcdlog_test

import (
	"context"
	"fmt"
	"log"

	"github.com/tom-ludwig/operator-scaling/test/audit/etcdlog"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
)

func Example() {
	ctx := context.Background()
	cp, err := controlplane.Start(ctx, controlplane.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer cp.Stop()
	l, err := etcdlog.Watch(ctx, cp.Etcd.URL(), "default", "default")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()

	// ... replicas of the ring "foo-operator" join, work, and leave ...
	var recorded []worklog.Process // their records

	if err := l.Sync(ctx); err != nil {
		log.Fatal(err)
	}
	result := l.Check("foo-operator", recorded)
	fmt.Println(result.Writes, "writes,", len(result.Findings), "findings")
}
