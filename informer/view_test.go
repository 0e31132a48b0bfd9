// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"fmt"
	"strconv"
	"strings"
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

	lost func() bool // is a release under way? The handler then misses updates.

	mu          sync.Mutex
	known       map[string]*corev1.ConfigMap
	readd       string                 // name that must be added again by the next call: the deletion was another object's
	stored      func(name string) bool // is an object of that name stored and active? nil: cannot be checked
	deliveredAt map[types.UID]int      // the clock when its deletion was last delivered
	clock       int                    // counts calls
	history     []string
	faults      []string
}

func newView() *view {
	return &view{known: map[string]*corev1.ConfigMap{}, deliveredAt: map[types.UID]int{}, gone: func(types.UID) bool { return true }, lost: func() bool { return true }}
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

// notReadded checks that nothing had to be added again.
func (v *view) notReadded() {
	v.check(v.readd == "", "%s must be added again", v.readd)
	v.readd = ""
}

// draining reports whether this member still holds the partition of an object.
func (v *view) draining(obj *corev1.ConfigMap) bool {
	if v.state == nil {
		return true
	}
	point, _ := pointOfLabel(obj)
	return v.state(point) != ring.NotOwned
}

func (v *view) active(obj *corev1.ConfigMap) bool {
	if v.state == nil {
		return true
	}
	point, _ := pointOfLabel(obj)
	return v.state(point) == ring.Active
}

func numberOf(c *corev1.ConfigMap) int {
	n, _ := strconv.Atoi(c.ResourceVersion)
	return n
}

func (v *view) OnAdd(o any, _ bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.call("add %s", label(o))
	obj := o.(*corev1.ConfigMap)
	known := v.known[obj.Name]
	if v.readd == obj.Name {
		v.readd = ""
	}
	v.notReadded()
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
	v.notReadded()
	v.check(v.draining(from) || v.draining(to) || v.lost(), "neither is held")
	if from.UID != to.UID {
		v.deliveredAt[from.UID] = v.clock
	}
	if known == nil {
		v.check(false, "not known")
		return
	}
	// Either the next step, or one that a replay has overtaken: it starts before what is known, and
	// ends at what is stored. Only the stream knows whether it has left a key in between.
	v.check(numberOf(from) <= numberOf(known) || v.lost(), "from %s, but %s is known", label(from), label(known))
	v.check(numberOf(to) >= numberOf(known) || v.stored != nil && !v.stored(to.Name), "%s is older than %s", label(to), label(known))
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
	v.notReadded()
	v.check(v.gone(obj.UID), "was not deleted")
	v.check(known != nil && known.UID == obj.UID || v.active(obj) || v.lost(), "neither known nor active")
	v.deliveredAt[obj.UID] = v.clock
	delete(v.known, obj.Name)
	if known != nil && known.UID != obj.UID && v.stored != nil && v.stored(obj.Name) && !v.lost() {
		v.readd = obj.Name
	}
}

func (v *view) OnReleased(o any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.call("released %s", label(o))
	v.notReadded()
	if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
		_, name, _ := strings.Cut(unknown.Key, "/")
		v.check(v.known[name] != nil, "%s is not known", name)
		delete(v.known, name)
		return
	}
	obj := o.(*corev1.ConfigMap)
	known := v.known[obj.Name]
	v.check(known != nil && known.UID == obj.UID && numberOf(known) <= numberOf(obj), "known as %v", known)
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
		if now := state(point); now == ring.Active || now == ring.Pending && known != nil { // a drain is not a loss
			active++
			v.check(known != nil && known.UID == obj.UID && numberOf(known) == numberOf(obj), "%s is active and stored, but %v is known", label(obj), known)
		} else {
			v.check(known == nil, "%s is not active, but %v is known", label(obj), known)
		}
	}
	v.check(len(v.known) == active, "%d objects are known, %d are stored and active", len(v.known), active)
	v.notReadded()
}
