// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 8

// owner is an Ownership that tests can change.
type owner struct{ states [partitions]atomic.Uint32 }

func (o *owner) State(point uint64) ring.State {
	return ring.State(o.states[ring.PartitionOf(point, partitions)].Load())
}

func (o *owner) set(state ring.State, ps ...int) ring.Set {
	set := ring.NewSet(partitions)
	for _, p := range ps {
		o.states[p].Store(uint32(state))
		set.Add(p)
	}
	return set
}

func everything() *owner {
	o := &owner{}
	o.set(ring.Active, 0, 1, 2, 3, 4, 5, 6, 7)
	return o
}

// pointOfLabel returns a point in the partition that the object's label p names.
func pointOfLabel(m metav1.Object) (uint64, error) {
	p, err := strconv.Atoi(m.GetLabels()["p"])
	if err != nil {
		return 0, errors.New("no partition")
	}
	first, _ := ring.RangeOf(p, partitions)
	return first, nil
}

// object returns the object name@version in a partition. Its UID is its name unless uid is given.
func object(name string, version, partition int, uid ...string) *corev1.ConfigMap {
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: name, UID: types.UID(name), ResourceVersion: strconv.Itoa(version),
		Labels: map[string]string{"p": strconv.Itoa(partition)},
	}}
	if partition < 0 {
		c.Labels = nil
	}
	if len(uid) > 0 {
		c.UID = types.UID(uid[0])
	}
	return c
}

// journal is a handler that records what it sees. A non-nil hook is called first, with the
// line to be recorded.
type journal struct {
	mu    sync.Mutex
	lines []string
	hook  func(line string)
}

func (j *journal) write(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if j.hook != nil {
		j.hook(line)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// take returns the lines recorded since its last call.
func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := j.lines
	j.lines = nil
	return lines
}

func (j *journal) OnAdd(obj any, initial bool) {
	if initial {
		j.write("add %s initial", label(obj))
	} else {
		j.write("add %s", label(obj))
	}
}

func (j *journal) OnUpdate(oldObj, newObj any) { j.write("update %s %s", label(oldObj), label(newObj)) }
func (j *journal) OnDelete(obj any)            { j.write("delete %s", label(obj)) }

// releaseJournal is a journal that records releases too.
type releaseJournal struct{ journal }

func (j *releaseJournal) OnReleased(obj any) { j.write("released %s", label(obj)) }

// label formats an object as name@version, with its UID if that differs from the name.
func label(obj any) string {
	if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		if d.Obj == nil {
			return "unknown " + d.Key
		}
		return "unknown " + label(d.Obj)
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return err.Error()
	}
	if string(m.GetUID()) != m.GetName() && m.GetUID() != "" {
		return fmt.Sprintf("%s(%s)@%s", m.GetName(), m.GetUID(), m.GetResourceVersion())
	}
	return m.GetName() + "@" + m.GetResourceVersion()
}

// counted formats the outcomes of an informer's events.
type counted struct{ *Informer }

func (c counted) String() string {
	s := ""
	for o, n := range c.Events() {
		if n > 0 {
			s += fmt.Sprintf("%s=%d ", Outcome(o), n)
		}
	}
	return s
}
