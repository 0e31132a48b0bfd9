// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/internal/leaseserver"
)

// Share makes a generated fake clientset of a member read and write the cluster's objects: pass
// &clientset.Fake, and the scheme of the clientset. [Cluster.Client] has done so. Objects that
// the clientset was created with are not visible any more: create them with the clientset
// afterwards.
func (c *Cluster) Share(member string, clientset *clienttesting.Fake, scheme *runtime.Scheme) {
	react := (&tracker{c, scheme}).react
	clientset.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		switch c.fault(member) {
		case Unreachable:
			return true, nil, ErrFault
		case LostAnswer:
			_, _, _ = react(action)
			return true, nil, ErrFault
		}
		return react(action)
	})
	clientset.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		if c.fault(member) != None {
			return true, nil, ErrFault
		}
		return true, c.watchObjects(member, action.(clienttesting.WatchAction)), nil
	})
}

// react carries out an action. It repeats a patch without a resourceVersion when another write was
// faster, as the API server does. A conflict with an object that has not changed meanwhile is final:
// the patch names another UID.
func (t *tracker) react(action clienttesting.Action) (handled bool, obj runtime.Object, err error) {
	react := clienttesting.ObjectReaction(t)
	patch, ok := action.(clienttesting.PatchAction)
	if !ok || strings.Contains(string(patch.GetPatch()), "resourceVersion") {
		return react(action)
	}
	version := func() string {
		if now, err := t.Get(patch.GetResource(), patch.GetNamespace(), patch.GetName()); err == nil {
			return metaOf(now).GetResourceVersion()
		}
		return ""
	}
	for {
		before := version()
		handled, obj, err = react(action)
		if !apierrors.IsConflict(err) || version() == before {
			return handled, obj, err
		}
	}
}

// tracker is a clienttesting.ObjectTracker of the cluster's objects. Other than client-go's, it
// sets resourceVersions, refuses writes of old versions, and its watches resume. Its
// methods take and return copies.
type tracker struct {
	cluster *Cluster
	scheme  *runtime.Scheme
}

// stored is an object with the resource that it belongs to.
type stored struct {
	resource schema.GroupVersionResource
	object   runtime.Object
}

var _ clienttesting.ObjectTracker = (*tracker)(nil)

func objectKey(gvr schema.GroupVersionResource, namespace, name string) string {
	return fmt.Sprintf("%s/%s/%s", gvr.GroupResource(), namespace, name)
}

// metaOf returns the metadata of an object that can be stored.
func metaOf(obj runtime.Object) metav1.Object {
	m, err := meta.Accessor(obj)
	if err != nil {
		panic(fmt.Sprintf("shardtest: %T is not an API object: %v", obj, err))
	}
	return m
}

// read returns a copy of an object with what the server has set.
func read(o leaseserver.Object[stored]) runtime.Object {
	obj := o.Value.object.DeepCopyObject()
	m := metaOf(obj)
	m.SetUID(types.UID(o.UID))
	m.SetResourceVersion(o.Version)
	m.SetCreationTimestamp(metav1.NewTime(o.Created))
	return obj
}

// written returns a copy of an object without what the server sets.
func written(gvr schema.GroupVersionResource, namespace string, obj runtime.Object) stored {
	obj = obj.DeepCopyObject()
	m := metaOf(obj)
	m.SetNamespace(namespace)
	m.SetUID("")
	m.SetResourceVersion("")
	m.SetCreationTimestamp(metav1.Time{})
	return stored{gvr, obj}
}

// resourceOf returns the resource of an object's type.
func resourceOf(scheme *runtime.Scheme, obj runtime.Object) (gvr schema.GroupVersionResource, err error) {
	kinds, _, err := scheme.ObjectKinds(obj)
	if err == nil {
		gvr, _ = meta.UnsafeGuessKindToResource(kinds[0])
	}
	return gvr, err
}

// write creates or overwrites an object without any condition, as a user who applies it, and returns
// its version.
func (c *Cluster) write(scheme *runtime.Scheme, obj runtime.Object) (version string, err error) {
	gvr, err := resourceOf(scheme, obj)
	if err != nil {
		return "", err
	}
	m := metaOf(obj)
	key, value := objectKey(gvr, m.GetNamespace(), m.GetName()), written(gvr, m.GetNamespace(), obj)
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.show()
	o, err := c.objects.Get(key)
	if err == nil {
		keep(value.object, o.Value.object)
		o, err = c.objects.Update(key, leaseserver.Condition{}, value)
	} else {
		o, err = c.objects.Create(key, time.Now(), value)
	}
	return o.Version, err
}

// keep gives an object what others have written to the stored one: finalizers, owner references,
// labels and annotations that the object does not have, and the status if it has none.
func keep(obj, stored runtime.Object) {
	m, old := metaOf(obj), metaOf(stored)
	for _, f := range old.GetFinalizers() {
		if !slices.Contains(m.GetFinalizers(), f) {
			m.SetFinalizers(append(m.GetFinalizers(), f))
		}
	}
	for _, r := range old.GetOwnerReferences() {
		if !slices.ContainsFunc(m.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return o.UID == r.UID }) {
			m.SetOwnerReferences(append(m.GetOwnerReferences(), r))
		}
	}
	m.SetLabels(labels.Merge(old.GetLabels(), m.GetLabels()))
	m.SetAnnotations(labels.Merge(old.GetAnnotations(), m.GetAnnotations()))
	if reflect.TypeOf(obj) == reflect.TypeOf(stored) {
		status := reflect.ValueOf(obj).Elem().FieldByName("Status")
		if status.IsValid() && status.IsZero() {
			status.Set(reflect.ValueOf(stored.DeepCopyObject()).Elem().FieldByName("Status"))
		}
	}
}

func apiError(gvr schema.GroupVersionResource, name string, err error) error {
	switch {
	case errors.Is(err, leaseserver.ErrNotFound):
		return apierrors.NewNotFound(gvr.GroupResource(), name)
	case errors.Is(err, leaseserver.ErrExists):
		return apierrors.NewAlreadyExists(gvr.GroupResource(), name)
	case err != nil:
		return apierrors.NewConflict(gvr.GroupResource(), name, err)
	}
	return nil
}

// Add implements clienttesting.ObjectTracker. It leaves an object that exists as it is.
func (t *tracker) Add(obj runtime.Object) error {
	gvr, err := resourceOf(t.scheme, obj)
	if err != nil {
		return err
	}
	if err := t.Create(gvr, obj, metaOf(obj).GetNamespace()); !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// Get implements clienttesting.ObjectTracker.
func (t *tracker) Get(gvr schema.GroupVersionResource, namespace, name string, _ ...metav1.GetOptions) (runtime.Object, error) {
	t.cluster.mu.Lock()
	defer t.cluster.mu.Unlock()
	o, err := t.cluster.objects.Get(objectKey(gvr, namespace, name))
	if err != nil {
		return nil, apiError(gvr, name, err)
	}
	return read(o), nil
}

// Create implements clienttesting.ObjectTracker.
func (t *tracker) Create(gvr schema.GroupVersionResource, obj runtime.Object, namespace string, _ ...metav1.CreateOptions) error {
	t.cluster.mu.Lock()
	defer t.cluster.mu.Unlock()
	m := metaOf(obj)
	if m.GetName() == "" {
		m.SetName(fmt.Sprintf("%s%d", m.GetGenerateName(), t.cluster.objects.End())) // ObjectReaction reads the name
	}
	_, err := t.cluster.objects.Create(objectKey(gvr, namespace, m.GetName()), time.Now(), written(gvr, namespace, obj))
	t.cluster.show()
	return apiError(gvr, m.GetName(), err)
}

// Update implements clienttesting.ObjectTracker.
func (t *tracker) Update(gvr schema.GroupVersionResource, obj runtime.Object, namespace string, _ ...metav1.UpdateOptions) error {
	t.cluster.mu.Lock()
	defer t.cluster.mu.Unlock()
	m := metaOf(obj)
	key := objectKey(gvr, namespace, m.GetName())
	old, err := t.cluster.objects.Get(key)
	if err != nil {
		return apiError(gvr, m.GetName(), err)
	}
	var condition leaseserver.Condition
	if uid := string(m.GetUID()); uid != "" {
		condition.UID = &uid
	}
	if version := m.GetResourceVersion(); version != "" {
		condition.Version = &version
	}
	update := written(gvr, namespace, obj)
	if old.Meets(condition) && equality.Semantic.DeepEqual(update.object, old.Value.object) {
		return nil // an update that changes nothing is not written
	}
	_, err = t.cluster.objects.Update(key, condition, update)
	t.cluster.show()
	return apiError(gvr, m.GetName(), err)
}

// Patch implements clienttesting.ObjectTracker. The object is patched already. The caller returns
// it, so Patch makes it what is stored.
func (t *tracker) Patch(gvr schema.GroupVersionResource, obj runtime.Object, namespace string, _ ...metav1.PatchOptions) error {
	if err := t.Update(gvr, obj, namespace); err != nil {
		return err
	}
	now, err := t.Get(gvr, namespace, metaOf(obj).GetName())
	if err != nil {
		return err
	}
	metaOf(obj).SetResourceVersion(metaOf(now).GetResourceVersion())
	return nil
}

// Apply implements clienttesting.ObjectTracker.
func (t *tracker) Apply(gvr schema.GroupVersionResource, _ runtime.Object, _ string, _ ...metav1.PatchOptions) error {
	return apierrors.NewMethodNotSupported(gvr.GroupResource(), "apply")
}

// List implements clienttesting.ObjectTracker. The caller applies the selectors.
func (t *tracker) List(gvr schema.GroupVersionResource, gvk schema.GroupVersionKind, namespace string, _ ...metav1.ListOptions) (runtime.Object, error) {
	gvk.Kind += "List"
	list, err := t.scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	t.cluster.mu.Lock()
	defer t.cluster.mu.Unlock()
	var items []runtime.Object
	for _, o := range t.cluster.objects.List() {
		if selects(gvr, namespace, nil)(o.Value) {
			items = append(items, read(o))
		}
	}
	if err := meta.SetList(list, items); err != nil {
		return nil, err
	}
	m, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	m.SetResourceVersion(t.cluster.objects.Version())
	return list, nil
}

// Delete implements clienttesting.ObjectTracker.
func (t *tracker) Delete(gvr schema.GroupVersionResource, namespace, name string, options ...metav1.DeleteOptions) error {
	t.cluster.mu.Lock()
	defer t.cluster.mu.Unlock()
	var condition leaseserver.Condition
	for _, o := range options {
		if o.Preconditions != nil {
			condition = leaseserver.Condition{UID: (*string)(o.Preconditions.UID), Version: o.Preconditions.ResourceVersion}
		}
	}
	err := t.cluster.objects.Delete(objectKey(gvr, namespace, name), condition)
	t.cluster.show()
	return apiError(gvr, name, err)
}

// Watch implements clienttesting.ObjectTracker. [Cluster.Share] serves watches itself, because it
// knows the member.
func (t *tracker) Watch(gvr schema.GroupVersionResource, _ string, _ ...metav1.ListOptions) (watch.Interface, error) {
	return nil, apierrors.NewMethodNotSupported(gvr.GroupResource(), "watch")
}

// selects returns what a request for a resource in a namespace selects. No namespace means all, a nil
// selector all labels.
func selects(gvr schema.GroupVersionResource, namespace string, selector labels.Selector) func(stored) bool {
	return func(s stored) bool {
		m := metaOf(s.object)
		return s.resource.GroupResource() == gvr.GroupResource() && (namespace == "" || m.GetNamespace() == namespace) &&
			(selector == nil || selector.Matches(labels.Set(m.GetLabels())))
	}
}

// objectCursor is the position of one watch of objects.
type objectCursor struct {
	store   *leaseserver.Store[stored]
	selects func(stored) bool
	next    int
	pending []watch.Event
}

// watchObjects begins a watch after a version. Without one, it begins with the present objects.
func (c *Cluster) watchObjects(member string, a clienttesting.WatchAction) watch.Interface {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := a.GetWatchRestrictions()
	cursor := &objectCursor{store: c.objects, selects: selects(a.GetResource(), a.GetNamespace(), r.Labels), next: c.objects.End()}
	if r.ResourceVersion == "" || r.ResourceVersion == "0" {
		for _, o := range c.objects.List() {
			if cursor.selects(o.Value) {
				cursor.pending = append(cursor.pending, watch.Event{Type: watch.Added, Object: read(o)})
			}
		}
	} else if next, err := c.objects.After(r.ResourceVersion); err != nil {
		status := apierrors.NewResourceExpired(err.Error()).Status()
		cursor.pending = []watch.Event{{Type: watch.Error, Object: &status}}
	} else {
		cursor.next = next
	}
	return c.addWatcher(member, cursor)
}

// Events returns the events since the last call.
func (c *objectCursor) Events() []watch.Event {
	events := c.pending
	c.pending = nil
	for ; c.next < c.store.End(); c.next++ {
		if event, o, ok := c.store.Change(c.next).Event(c.selects); ok {
			events = append(events, watch.Event{Type: watch.EventType(event), Object: read(o)})
		}
	}
	return events
}

// Versions returns the resourceVersions of the objects of a resource, such as "configmaps" or
// "foos.example.com", by namespace/name, or by name without a namespace. See [Exclusive.Lost].
func (c *Cluster) Versions(resource string) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	versions := map[string]string{}
	for _, o := range c.objects.List() {
		if o.Value.resource.GroupResource().String() == resource {
			versions[cache.MetaObjectToName(metaOf(o.Value.object)).String()] = o.Version
		}
	}
	return versions
}
