// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package etcdlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
)

// Version is one state of an object.
type Version[T any] struct {
	Revision int64     // its resourceVersion, or the revision of the deletion
	Seen     time.Time // not before it was committed
	Name     string
	Object   *T // nil: deleted
}

// The objects in a log.
type (
	LeaseVersion = Version[coordinationv1.Lease]
	FooVersion   = Version[v1alpha1.Foo]
)

// Log has everything that happened to a ring's Leases and Foos since [Watch].
type Log struct {
	namespace string // of the Foos
	client    *clientv3.Client
	stop      context.CancelFunc
	wait      sync.WaitGroup

	mu     sync.Mutex
	leases stream[coordinationv1.Lease]
	foos   stream[v1alpha1.Foo]
	err    error // the first one
}

// stream has the versions of the objects of one kind.
type stream[T any] struct {
	prefix string // of their keys in etcd
	all    []Version[T]
	seen   int64 // everything up to this revision is in all
}

// Watch starts a log of the Leases of one namespace and the Foos of one, often the same. The
// caller must call Close. url is the URL of etcd. Existing objects are not in the log.
func Watch(ctx context.Context, url, leases, foos string) (*Log, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, DialTimeout: 10 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("watch etcd at %s: %w", url, err)
	}
	l := &Log{namespace: foos, client: client}
	now, err := client.Get(ctx, "/", clientv3.WithCountOnly())
	if err != nil {
		_ = client.Close()
		return nil, fmt.Errorf("watch etcd at %s: %w", url, err)
	}
	l.leases = stream[coordinationv1.Lease]{prefix: "/registry/leases/" + leases + "/", seen: now.Header.Revision}
	l.foos = stream[v1alpha1.Foo]{prefix: "/registry/" + v1alpha1.GroupName + "/foos/" + foos + "/", seen: now.Header.Revision}
	watching, stop := context.WithCancel(clientv3.WithRequireLeader(context.Background()))
	l.stop = stop
	follow(l, watching, &l.leases)
	follow(l, watching, &l.foos)
	return l, nil
}

// Close ends the log. Its contents stay available.
func (l *Log) Close() {
	l.stop()
	l.wait.Wait()
	_ = l.client.Close() // nothing was written
}

// follow reads one of the two streams until the context ends.
func follow[T any](l *Log, ctx context.Context, s *stream[T]) {
	events := l.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(s.seen+1))
	l.wait.Go(func() {
		for answer := range events {
			l.mu.Lock()
			err := answer.Err()
			for _, event := range answer.Events {
				err = errors.Join(err, s.take(event))
			}
			if err != nil && l.err == nil {
				l.err = fmt.Errorf("watch %s: %w", s.prefix, err)
			}
			s.seen = max(s.seen, answer.Header.Revision)
			l.mu.Unlock()
		}
	})
}

func (s *stream[T]) take(event *clientv3.Event) error {
	v := Version[T]{Revision: event.Kv.ModRevision, Seen: time.Now(), Name: strings.TrimPrefix(string(event.Kv.Key), s.prefix)}
	if event.Type != clientv3.EventTypeDelete {
		v.Object = new(T)
		object := any(v.Object).(metav1.Object)
		// Leases are stored as protobuf, Foos as JSON.
		err := runtime.DecodeInto(scheme.Codecs.UniversalDeserializer(), event.Kv.Value, object.(runtime.Object))
		if err != nil {
			return fmt.Errorf("decode %s of revision %d: %w", v.Name, v.Revision, err)
		}
		object.SetResourceVersion(fmt.Sprint(v.Revision)) // not stored with the object
	}
	s.all = append(s.all, v)
	return nil
}

// Sync returns when everything that had been committed when it was called is in
// the log, or with an error if the log is incomplete.
func (l *Log) Sync(ctx context.Context) error {
	now, err := l.client.Get(ctx, "/", clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("ask etcd for its revision: %w", err)
	}
	for {
		// Requested again each time, because a stream that lags does not respond.
		if err := l.client.RequestProgress(clientv3.WithRequireLeader(ctx)); err != nil {
			return fmt.Errorf("ask etcd for progress: %w", err)
		}
		l.mu.Lock()
		revision, err := min(l.leases.seen, l.foos.seen), l.err
		l.mu.Unlock()
		if err != nil {
			return fmt.Errorf("the history is incomplete: %w", err)
		}
		if revision >= now.Header.Revision {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the history is at revision %d, etcd at %d: %w", revision, now.Header.Revision, context.Cause(ctx))
		}
	}
}

// Leases returns all versions of all Leases, in commit order.
func (l *Log) Leases() []LeaseVersion {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.leases.all)
}

// Lease returns all versions of one Lease.
func (l *Log) Lease(name string) []LeaseVersion {
	return slices.DeleteFunc(l.Leases(), func(v LeaseVersion) bool { return v.Name != name })
}

// Foos returns all versions of all Foos, in commit order.
func (l *Log) Foos() []FooVersion {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.foos.all)
}
