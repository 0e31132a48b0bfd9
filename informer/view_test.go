// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"fmt"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// view is a handler that keeps, by name, the latest version of each object it has seen, and
// checks that each call is consistent with the calls before (I1, I2, I5, I6).
type view struct {
	state func(point uint64) ring.State // nil: cannot be checked, because it changes concurrently
	gone  func(types.UID) bool          // was an object with this UID ever reported as deleted?

	mu          sync.Mutex
	known       map[string]*corev1.ConfigMap
	readd       string            // name that must be added again by the next call
	deliveredAt map[types.UID]int // the clock when its deletion was last delivered
	clock       int               // counts calls
	history     []string
	faults      []string
}

func newView() *view {
	return &view{known: map[string]*corev1.ConfigMap{}, deliveredAt: map[types.UID]int{}, gone: func(types.UID) bool { return true }}
}

func (v *view) call(format string, args ...any) {
	v.clock++
	v.history = append(v.history, fmt.Sprintf(format, args...))
}

func (v *view) check(ok bool, format string, args ...any) {
	if !ok {
		v.faults = append(v.faults, fmt.Sprintf("at %q: %s", v.history[len(v.history)-1], fmt.Sprintf(format, args...)))
	}
}

func (v *view) active(obj *corev1.ConfigMap) bool {
	if v.state == nil {
		return true
	}
	point, _ := pointOfLabel(obj)
	return v.state(point) == ring.Active
}

func versionOf(c *corev1.ConfigMap) int {
	n, _ := strconv.Atoi(c.ResourceVersion)
	return n
}

func (v *view) OnAdd(o any, _ bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.call("add %s", label(o))
	obj := o.(*corev1.ConfigMap)
	known := v.known[obj.Name]
	if v.readd != "" {
		v.check(v.readd == obj.Name && known == obj, "%s must be added again", v.readd)
		v.readd = ""
		return
	}
	v.check(known == nil, "%s is known", obj.Name)
	v.check(v.active(obj), "not active")
	v.known[obj.Name] = obj
}

func (v *view) OnUpdate(o, n any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.call("update %s %s", label(o), label(n))
	from, to := o.(*corev1.ConfigMap), n.(*corev1.ConfigMap)
	known := v.known[to.Name]
	v.check(v.readd == "", "%s must be added again", v.readd)
	v.check(v.active(from) || v.active(to), "neither is active")
	if from.UID != to.UID {
		v.deliveredAt[from.UID] = v.clock
	}
	if known == nil {
		v.check(false, "not known")
		return
	}
	// Either the next step, or one that a replay has overtaken.
	v.check(versionOf(from) == versionOf(known) || versionOf(from) < versionOf(known) && to == known, "from %s, but %s is known", label(from), label(known))
	v.check(versionOf(to) >= versionOf(known), "%s is older than %s", label(to), label(known))
	v.known[to.Name] = to
}

func (v *view) OnDelete(o any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.call("delete %s", label(o))
	if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = unknown.Obj
	}
	obj := o.(*corev1.ConfigMap)
	known := v.known[obj.Name]
	v.check(v.readd == "", "%s must be added again", v.readd)
	v.check(v.gone(obj.UID), "was not deleted")
	v.check(known != nil && known.UID == obj.UID || v.active(obj), "neither known nor active")
	v.deliveredAt[obj.UID] = v.clock
	if known != nil && known.UID != obj.UID {
		v.readd = obj.Name
		return
	}
	delete(v.known, obj.Name)
}

func (v *view) OnReleased(o any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.call("released %s", label(o))
	obj := o.(*corev1.ConfigMap)
	known := v.known[obj.Name]
	v.check(v.readd == "", "%s must be added again", v.readd)
	v.check(known != nil && versionOf(known) == versionOf(obj), "known as %v", known)
	delete(v.known, obj.Name)
}

// settled checks, when no more calls are under way, that the view equals what the store holds
// and the ownership allows (I3).
func (v *view) settled(stored []any, state func(uint64) ring.State) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.call("settled")
	active := 0
	for _, o := range stored {
		obj := o.(*corev1.ConfigMap)
		point, _ := pointOfLabel(obj)
		known := v.known[obj.Name]
		if state(point) == ring.Active {
			active++
			v.check(known != nil && known.UID == obj.UID && versionOf(known) == versionOf(obj), "%s is active and stored, but %v is known", label(obj), known)
		} else {
			v.check(known == nil, "%s is not active, but %v is known", label(obj), known)
		}
	}
	v.check(len(v.known) == active, "%d objects are known, %d are stored and active", len(v.known), active)
	v.check(v.readd == "", "%s must be added again", v.readd)
}
