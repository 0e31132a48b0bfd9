// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strconv"

	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/example-controller/record"
	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// recorder writes down what is worked on, under which token. The version is the generation and not the
// resourceVersion: that one also changes when the controller writes the status.
type recorder struct {
	writer *record.Writer
	shard  *shard.Sharder
}

func (r recorder) Begin(key cache.ObjectName, foo *v1alpha1.Foo) (ended func(error)) {
	version := record.Gone
	if foo != nil {
		version = strconv.FormatInt(foo.Generation, 10)
	}
	name := key.String()
	return r.writer.Work(record.Record{Key: name, Version: version, Token: r.shard.Token(name)})
}

// Write leaves out what the transport will not send (see main.go).
func (r recorder) Write(ctx context.Context, key cache.ObjectName) {
	if workqueue.Check(ctx) != nil {
		return
	}
	name := key.String()
	r.writer.Append(record.Record{Event: record.Write, Key: name, Token: r.shard.Token(name)})
}
