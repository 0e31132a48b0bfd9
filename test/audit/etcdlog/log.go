// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package etcdlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
)

// LeaseVersion is one state of a Lease.
type LeaseVersion struct {
	Revision int64     // its resourceVersion, or the revision of the deletion
	Seen     time.Time // not before it was committed
	Name     string
	Lease    *coordinationv1.Lease // nil: deleted
}

// FooVersion is one state of a Foo.
type FooVersion struct {
	Revision int64
	Seen     time.Time
	Name     string
	Foo      *v1alpha1.Foo // nil: deleted
}

// Log has everything that happened to a ring's Leases and Foos since [Watch].
type Log struct {
	namespace string // of the Foos
	client    *clientv3.Client
	stop      context.CancelFunc
	wait      sync.WaitGroup

	mu     sync.Mutex
	leases []LeaseVersion
	foos   []FooVersion
	seen   [2]int64 // everything of the Leases, of the Foos up to these revisions is in the log
	err    error    // the first one
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
	revision := now.Header.Revision
	l.seen = [2]int64{revision, revision}

	watching, stop := context.WithCancel(clientv3.WithRequireLeader(context.Background()))
	l.stop = stop
	for i, prefix := range []string{
		"/registry/leases/" + leases + "/",
		"/registry/" + v1alpha1.GroupName + "/foos/" + foos + "/",
	} {
		events := client.Watch(watching, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
		l.wait.Go(func() { l.follow(i, prefix, events) })
	}
	return l, nil
}

// Close ends the log. Its contents stay available.
func (l *Log) Close() {
	l.stop()
	l.wait.Wait()
	_ = l.client.Close() // nothing was written
}

// follow reads one of the two streams.
func (l *Log) follow(stream int, prefix string, events clientv3.WatchChan) {
	for answer := range events {
		l.mu.Lock()
		err := answer.Err()
		for _, event := range answer.Events {
			err = errors.Join(err, l.take(strings.TrimPrefix(string(event.Kv.Key), prefix), stream, event))
		}
		if err != nil && l.err == nil {
			l.err = fmt.Errorf("watch %s: %w", prefix, err)
		}
		l.seen[stream] = max(l.seen[stream], answer.Header.Revision)
		l.mu.Unlock()
	}
}

func (l *Log) take(name string, stream int, event *clientv3.Event) error {
	revision, now := event.Kv.ModRevision, time.Now()
	deleted := event.Type == clientv3.EventTypeDelete
	if stream == 0 {
		v := LeaseVersion{Revision: revision, Seen: now, Name: name}
		if !deleted {
			obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(event.Kv.Value, nil, nil)
			if err != nil {
				return fmt.Errorf("decode Lease %s of revision %d: %w", name, revision, err)
			}
			v.Lease = obj.(*coordinationv1.Lease)
			v.Lease.ResourceVersion = fmt.Sprint(revision) // not stored with the object
		}
		l.leases = append(l.leases, v)
		return nil
	}
	v := FooVersion{Revision: revision, Seen: now, Name: name}
	if !deleted {
		v.Foo = &v1alpha1.Foo{}
		if err := json.Unmarshal(event.Kv.Value, v.Foo); err != nil {
			return fmt.Errorf("decode Foo %s of revision %d: %w", name, revision, err)
		}
		v.Foo.ResourceVersion = fmt.Sprint(revision)
	}
	l.foos = append(l.foos, v)
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
		revision, err := min(l.seen[0], l.seen[1]), l.err
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
	return slices.Clone(l.leases)
}

// Lease returns all versions of one Lease.
func (l *Log) Lease(name string) []LeaseVersion {
	return slices.DeleteFunc(l.Leases(), func(v LeaseVersion) bool { return v.Name != name })
}

// Foos returns all versions of all Foos, in commit order.
func (l *Log) Foos() []FooVersion {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.foos)
}
