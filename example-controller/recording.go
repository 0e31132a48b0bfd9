// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"

	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/example-controller/record"
	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// recorder records which objects are worked on, under which token, and when this member owned which partitions. The version
// is the generation and not the resourceVersion, which also changes when the controller writes the status. A nil recorder
// records nothing.
type recorder struct {
	writer *record.Writer
	shard  *shard.Sharder
}

// openRecorder returns nil if the path is empty.
func openRecorder(path string) (*recorder, error) {
	if path == "" {
		return nil, nil
	}
	r := &recorder{}
	writer, err := record.Open(path, func() string { return r.shard.Identity() })
	if err != nil {
		return nil, fmt.Errorf("--record-to: %w", err)
	}
	r.writer = writer
	return r, nil
}

func (r *recorder) close() error {
	if r == nil {
		return nil
	}
	return r.writer.Close()
}

// observe returns the recorder as an Observer of work on the given ring, or nil if there is no recorder.
func (r *recorder) observe(s *shard.Sharder) Observer {
	if r == nil {
		return nil
	}
	r.shard = s
	return r
}

// Begin implements Observer.
func (r *recorder) Begin(key cache.ObjectName, foo *v1alpha1.Foo) (ended func(error)) {
	version := record.Gone
	if foo != nil {
		version = strconv.FormatInt(foo.Generation, 10)
	}
	name := key.String()
	return r.writer.Work(record.Record{Key: name, Version: version, Token: r.shard.Token(name)})
}

// Write implements Observer. It does not record requests that the transport will refuse to send (see main.go).
func (r *recorder) Write(ctx context.Context, key cache.ObjectName) {
	if workqueue.Check(ctx) != nil {
		return
	}
	name := key.String()
	r.writer.Append(record.Record{Event: record.Write, Key: name, Token: r.shard.Token(name)})
}

// events maps the changes of this member that are recorded.
var events = map[shard.ChangeKind]record.Event{
	shard.Joined:    record.Join,
	shard.Activated: record.Activate,
	shard.Released:  record.Release,
	shard.Fenced:    record.Fence,
	shard.Unfenced:  record.Resume,
	shard.Left:      record.Leave,
}

// changed is the function for shard.Config.OnChange.
func (r *recorder) changed(c shard.Change) {
	if event, ok := events[c.Kind]; ok && r != nil {
		r.writer.Append(record.Record{Event: event, Member: c.Member, Partitions: c.Partitions})
	}
}
