// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
)

// The errors of [Rehearsal.Run].
var (
	// ErrOverlap: two pieces of work on one object overlapped.
	ErrOverlap = errors.New("two pieces of work on one object overlapped")
	// ErrLost: the last version of an object was not reconciled.
	ErrLost = errors.New("the last version of an object was not reconciled")
)

// Rehearsal tests an operator: members join, stop and are cut off from the API server while the
// objects change. A copy of the operator runs as each member, and all share one [Cluster].
type Rehearsal struct {
	// Operate runs the operator as one member, as its main function does, with the member's Name
	// as Config.PodName. It returns when ctx is done and all of its work has ended. It is called
	// several times, and several calls run at once. Each piece of work calls [Member.Begin].
	Operate func(ctx context.Context, m *Member) error
	// Objects returns the objects that the operator reconciles, as a user writes them. The
	// version is 1 at first, and increases: the operator must have work to do at each version.
	// If its handlers compare metadata.generation, set that to the version. A later version replaces
	// what the operator has written, except for finalizers, owner references, labels and annotations
	// that the version does not have, and the status if it has none.
	Objects func(version int) []runtime.Object
	// Scheme knows the types of the objects. Default: client-go's scheme.
	Scheme *runtime.Scheme
}

// Member is one member in a [Rehearsal].
type Member struct {
	// Name is the name of the Pod.
	Name string
	// Client is the member's clientset. For clientsets of other types see [Cluster.Share].
	Client *fake.Clientset
	// Cluster is the API server of all members.
	Cluster *Cluster

	scheme *runtime.Scheme
	work   *Exclusive
}

// Begin records that the member starts to work on an object, at the version that it has read from
// its cache. The object has a type that Rehearsal.Scheme knows. Call it first, and [Work.End] last.
func (m *Member) Begin(obj metav1.Object) *Work {
	return m.work.Begin(m.Name, keyOf(m.scheme, obj), obj.GetResourceVersion())
}

// keyOf returns the key of an object among all kinds.
func keyOf(scheme *runtime.Scheme, obj metav1.Object) string {
	kind := fmt.Sprintf("%T", obj)
	if o, ok := obj.(runtime.Object); ok {
		if kinds, _, err := scheme.ObjectKinds(o); err == nil {
			kind = kinds[0].GroupKind().String()
		}
	}
	return kind + " " + cache.MetaObjectToName(obj).String()
}

// Run runs the rehearsal, and returns when all members have ended. It returns an error that is
// [ErrOverlap] or [ErrLost], or both, if it has found these faults, and the errors of Operate. It
// also fails if a member does not join, or does not join again, within about twice
// Config.LeaseDuration. Each of two members must own a partition, so leave their number as it is.
//
// Call it within a bubble of testing/synctest. There it takes no time; elsewhere it takes about
// three times Config.LeaseDuration, and longer if it finds faults.
func (r Rehearsal) Run() error {
	if r.Scheme == nil {
		r.Scheme = scheme.Scheme
	}
	run := &rehearsal{Rehearsal: r, cluster: NewCluster(), want: map[string]string{}, stop: map[string]func(){}}
	err := run.during(
		step{func() { run.start("op-0") }, []string{"op-0"}},
		step{func() { run.start("op-1") }, []string{"op-0", "op-1"}},
		step{func() { run.stop["op-0"]() }, []string{"op-1"}},
		step{func() { run.start("op-2") }, []string{"op-1", "op-2"}},
		step{func() { run.cluster.Break("op-1", Unreachable) }, []string{"op-2"}},
		step{func() { run.cluster.Break("op-1", None) }, []string{"op-1", "op-2"}}, // it joins again
		step{func() {}, []string{"op-1", "op-2"}},                                  // it works again
	)
	for _, stop := range run.stop {
		stop()
	}
	run.members.Wait()
	if overlaps := run.work.Overlaps(); len(overlaps) > 0 {
		err = errors.Join(err, fmt.Errorf("%w: %d times, first %v", ErrOverlap, len(overlaps), overlaps[0]))
	}
	return errors.Join(err, errors.Join(run.errs...))
}

// rehearsal is one run of a Rehearsal.
type rehearsal struct {
	Rehearsal
	cluster *Cluster
	work    Exclusive
	want    map[string]string // key -> the version of the last change
	version int
	stop    map[string]func() // by member
	members sync.WaitGroup

	mu   sync.Mutex
	errs []error // of members; guarded by mu
}

// step is one step of a rehearsal, and the members that hold claims after it, sorted.
type step struct {
	take   func()
	owners []string
}

// start starts a member.
func (r *rehearsal) start(name string) {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop[name] = cancel
	m := &Member{Name: name, Client: r.cluster.Client(name), Cluster: r.cluster, scheme: r.Scheme, work: &r.work}
	r.members.Go(func() {
		err := r.Operate(ctx, m)
		if err == nil && ctx.Err() == nil {
			err = errors.New("shardtest: Rehearsal.Operate returned before it was stopped")
		}
		if err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.errs = append(r.errs, fmt.Errorf("member %s: %w", name, err))
		}
	})
}

// during takes each step in the middle of a change of all objects, and then waits until the change
// is reconciled and the members have joined or lost their claims.
func (r *rehearsal) during(steps ...step) error {
	for _, step := range steps {
		r.version++
		objects := r.Objects(r.version)
		if len(objects) == 0 {
			return errors.New("shardtest: Rehearsal.Objects has returned no objects")
		}
		for i, obj := range objects {
			if i == len(objects)/2 {
				step.take()
			}
			version, err := r.cluster.write(r.Scheme, obj)
			if err != nil {
				return err
			}
			r.want[keyOf(r.Scheme, metaOf(obj))] = version
			time.Sleep(time.Millisecond)
		}
		if err := r.settle(step.owners); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until the last version of each object was reconciled and only the given members
// hold claims, but no longer than other members need to take over the work of one that is cut off.
func (r *rehearsal) settle(owners []string) error {
	timeout := 20 * time.Second
	for _, l := range r.cluster.Leases(metav1.NamespaceAll) {
		if d := l.Spec.LeaseDurationSeconds; d != nil {
			timeout = max(timeout, 20*time.Second+2*time.Duration(*d)*time.Second)
		}
	}
	for end := time.Now().Add(timeout); ; time.Sleep(10 * time.Millisecond) {
		lost, now := r.work.Lost(r.want), r.owners()
		switch over := r.failed() || time.Now().After(end); {
		case len(lost) == 0 && slices.Equal(now, owners):
			return nil
		case over && len(lost) > 0:
			return fmt.Errorf("%w: %d of %d, first %s", ErrLost, len(lost), len(r.want), lost[0])
		case over:
			return fmt.Errorf("shardtest: the members with claims are %q after %v, want %q", now, timeout, owners)
		}
	}
}

// claims is the annotation with the claims of a member, on the Lease that it holds.
const claims = "operator-scaling.tom-ludwig.github.io/claims"

// owners returns the members that hold claims, sorted.
func (r *rehearsal) owners() []string {
	var owners []string
	for _, l := range r.cluster.Leases(metav1.NamespaceAll) {
		if l.Spec.HolderIdentity != nil && l.Annotations[claims] != "" {
			name, _, _ := strings.Cut(*l.Spec.HolderIdentity, "_")
			owners = append(owners, name)
		}
	}
	slices.Sort(owners)
	return slices.Compact(owners)
}

// failed reports whether a member has failed.
func (r *rehearsal) failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.errs) > 0
}
