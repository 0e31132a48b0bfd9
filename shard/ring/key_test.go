// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/sharding"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

func object(namespace, name, uid string, owners ...metav1.OwnerReference) *metav1.ObjectMeta {
	return &metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(uid), OwnerReferences: owners}
}

// controllerRef is the owner reference that a controller sets on an object that it creates.
func controllerRef(owner metav1.Object) metav1.OwnerReference {
	return *metav1.NewControllerRef(owner, schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Foo"})
}

func resolve(t testing.TB, k, ringKey Key) Key {
	t.Helper()
	resolved, err := k.Resolve(ringKey)
	if err != nil {
		t.Fatalf("key %q on a ring by %q: %v", k.Name(), ringKey.Name(), err)
	}
	return resolved
}

var byLabel = ByFunc("team", func(o metav1.Object) string { return o.GetLabels()["team"] })

func TestKeyOf(t *testing.T) {
	namespaced, cluster := object("shop", "cart", "uid-1"), object("", "cart", "uid-2")
	labelled := object("shop", "cart", "uid-1")
	labelled.Labels = map[string]string{"team": "blue"}
	for _, c := range []struct {
		key  Key
		obj  metav1.Object
		want string
	}{
		{ByName, namespaced, "shop/cart"},
		{ByName, cluster, "cart"},
		{ByNamespace, namespaced, "shop"},
		{ByNamespace, cluster, "cart"},
		{ByNamespace, object("", "shop", "uid-3"), "shop"}, // the Namespace has the same key as the objects in it
		{ByUID, namespaced, "uid-1"},
		{ByUID, cluster, "uid-2"},
		{byLabel, labelled, "blue"},
		{byLabel, namespaced, ""},
	} {
		if got := c.key.Of(c.obj); got != c.want {
			t.Errorf("%s of %s/%s = %q, want %q", c.key.Name(), c.obj.GetNamespace(), c.obj.GetName(), got, c.want)
		}
		if got, want := c.key.Point(c.obj, HashOf(c.key)), HashOf(c.key)(c.want); got != want {
			t.Errorf("%s of %s/%s lies at %#x, want %#x", c.key.Name(), c.obj.GetNamespace(), c.obj.GetName(), got, want)
		}
	}
}

func TestKeyNames(t *testing.T) {
	for want, k := range map[string]Key{
		"name": ByName, "namespace": ByNamespace, "uid": ByUID, "controller": ByController,
		"cluster-controller": ByClusterController, "custom-team": byLabel,
	} {
		if k.Name() != want {
			t.Errorf("name %q, want %q", k.Name(), want)
		}
	}
	// A custom key cannot have the name of a built-in one.
	if k := ByFunc("uid", byLabel.of); k.Name() == ByUID.Name() || HashOf(k)("x") != xxh3.HashString("x") {
		t.Errorf("ByFunc(%q) is treated as ByUID", "uid")
	}
}

// Queues hash the item, which is the object's name; informers hash the object.
func TestByNameIsTheNameOfItemsInQueues(t *testing.T) {
	for _, o := range []*metav1.ObjectMeta{object("shop", "cart", ""), object("", "cart", "")} {
		want := HashOf(ByName)(ByName.Of(o))
		key, err := cache.MetaNamespaceKeyFunc(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range []string{key, cache.MetaObjectToName(o).String(), NamespacedName(o.Namespace, o.Name)} {
			if got := HashOf(ByName)(item); got != want {
				t.Errorf("item %q lies at %#x, its object at %#x", item, got, want)
			}
		}
		if got := PointOfName(o.Namespace, o.Name); got != want {
			t.Errorf("PointOfName(%q, %q) = %#x, the object lies at %#x", o.Namespace, o.Name, got, want)
		}
	}
}

func TestPointOfNameIsTheHashOfTheString(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	lengths := []int{0, 1, 8, 63, 64, 100, 240, 253, 254, 316, 317, 318, 5000}
	for range 1000 {
		namespace := strings.Repeat("n", lengths[rng.IntN(len(lengths))])
		name := strings.Repeat("x", lengths[rng.IntN(len(lengths))])
		if got, want := PointOfName(namespace, name), xxh3.HashString(NamespacedName(namespace, name)); got != want {
			t.Fatalf("namespace of %d, name of %d characters: %#x, want %#x", len(namespace), len(name), got, want)
		}
	}
}

func TestAChildHasTheOwnerOfItsParent(t *testing.T) {
	parent := object("shop", "cart", "uid-parent")
	clusterParent := object("", "cart", "uid-cluster-parent")
	other := controllerRef(object("shop", "bystander", "uid-bystander"))
	other.Controller = nil
	no := false
	third := controllerRef(object("shop", "third", "uid-third"))
	third.Controller = &no
	for _, c := range []struct {
		name   string
		key    Key
		ring   Key
		parent metav1.Object
		child  metav1.Object
	}{
		{"by name", ByController, ByName, parent, object("shop", "cart-7f9c", "uid-child", controllerRef(parent))},
		{"by namespace", ByController, ByNamespace, parent, object("shop", "cart-7f9c", "uid-child", controllerRef(parent))},
		{"by UID", ByController, ByUID, parent, object("shop", "cart-7f9c", "uid-child", controllerRef(parent))},
		{"among other owners", ByController, ByName, parent, object("shop", "cart-7f9c", "uid-child", other, third, controllerRef(parent))},
		{"both cluster-scoped, by name", ByController, ByName, clusterParent, object("", "volume", "uid-child", controllerRef(clusterParent))},
		{"both cluster-scoped, by namespace", ByController, ByNamespace, clusterParent, object("", "volume", "uid-child", controllerRef(clusterParent))},
		{"both cluster-scoped, by UID", ByController, ByUID, clusterParent, object("", "volume", "uid-child", controllerRef(clusterParent))},
		{"cluster-scoped parent, by name", ByClusterController, ByName, clusterParent, object("shop", "cart-7f9c", "uid-child", controllerRef(clusterParent))},
		{"cluster-scoped parent, by namespace", ByClusterController, ByNamespace, clusterParent, object("shop", "cart-7f9c", "uid-child", controllerRef(clusterParent))},
		{"cluster-scoped parent, by UID", ByClusterController, ByUID, clusterParent, object("shop", "cart-7f9c", "uid-child", controllerRef(clusterParent))},
	} {
		t.Run(c.name, func(t *testing.T) {
			hash := HashOf(c.ring)
			key := resolve(t, c.key, c.ring)
			if got, want := key.Of(c.child), c.ring.Of(c.parent); got != want {
				t.Errorf("the child's key is %q, the parent's %q", got, want)
			}
			parentPoint := resolve(t, c.ring, c.ring).Point(c.parent, hash)
			if got := key.Point(c.child, hash); got != parentPoint {
				t.Errorf("the child lies at %#x, its parent at %#x", got, parentPoint)
			}
			// The parent's informer may use the same key: a parent has no controller.
			if got := key.Point(c.parent, hash); got != parentPoint {
				t.Errorf("with the child's key the parent lies at %#x, by its own at %#x", got, parentPoint)
			}
		})
	}
}

func TestObjectsWithoutControllerUseTheirOwnKey(t *testing.T) {
	ref := controllerRef(object("shop", "cart", "uid-parent"))
	ref.Controller = nil
	orphan := object("shop", "orphan", "uid-orphan", ref)
	for _, k := range []Key{ByController, ByClusterController} {
		for _, ringKey := range []Key{ByName, ByNamespace, ByUID} {
			key := resolve(t, k, ringKey)
			if got, want := key.Point(orphan, HashOf(ringKey)), ringKey.Point(orphan, HashOf(ringKey)); got != want || key.Of(orphan) != ringKey.Of(orphan) {
				t.Errorf("%s on a ring by %s: key %q at %#x, want %q at %#x", k.Name(), ringKey.Name(), key.Of(orphan), got, ringKey.Of(orphan), want)
			}
		}
	}
}

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		key, ring Key
		want      error // nil: any
		fails     bool
	}{
		{key: ByName, ring: ByName},
		{key: ByUID, ring: ByUID},
		{key: byLabel, ring: byLabel},
		{key: byLabel, ring: ByName},
		{key: ByName, ring: byLabel, want: ErrOtherKey, fails: true},
		{key: ByName, ring: ByNamespace, want: ErrOtherKey, fails: true},
		{key: ByName, ring: ByUID, want: ErrOtherKey, fails: true},
		{key: ByUID, ring: ByName, want: ErrOtherKey, fails: true},
		{key: Unfiltered, ring: ByName, fails: true},
		{key: ByController, ring: byLabel, want: ErrNoOwnerKey, fails: true},
		{key: ByClusterController, ring: byLabel, want: ErrNoOwnerKey, fails: true},
		{key: ByController, ring: ByController, want: ErrNoOwnerKey, fails: true},
		{key: ByClusterController, ring: ByController, want: ErrNoOwnerKey, fails: true},
		{key: ByController, ring: Key{}, want: ErrNoOwnerKey, fails: true},
		{key: Key{}, ring: ByName, fails: true},
		{key: ByFunc("nothing", nil), ring: ByName, fails: true},
	} {
		k, err := c.key.Resolve(c.ring)
		if (err != nil) != c.fails || !errors.Is(err, c.want) && c.want != nil {
			t.Errorf("%q on a ring by %q: error %v, want %v", c.key.Name(), c.ring.Name(), err, c.want)
		}
		if err == nil && k.Name() != c.key.Name() {
			t.Errorf("%q on a ring by %q became %q", c.key.Name(), c.ring.Name(), k.Name())
		}
		if err != nil && c.want != nil && (!strings.Contains(err.Error(), fmt.Sprintf("%q", c.key.Name())) || !strings.Contains(err.Error(), "ByFunc")) {
			t.Errorf("error %q does not name the key and the solution", err)
		}
	}
}

// All keys of a ring use the same hash function. Otherwise an informer would compute another
// point from an object than a queue computes from its name.
func TestResolvedKeysUseTheHashOfTheRing(t *testing.T) {
	child := object("shop", "cart-7f9c", "uid-child", controllerRef(object("shop", "cart", "uid-parent")))
	child.Labels = map[string]string{"team": "blue"}
	for _, ringKey := range []Key{ByName, ByNamespace, ByUID, byLabel} {
		for _, k := range []Key{ByName, ByNamespace, ByUID, byLabel, ByController, ByClusterController} {
			key, err := k.Resolve(ringKey)
			if err != nil {
				continue
			}
			hash := HashOf(ringKey)
			if got, want := key.Point(child, hash), hash(key.Of(child)); got != want {
				t.Errorf("%s on a ring by %s: the point is %#x, the hash of the key %#x", k.Name(), ringKey.Name(), got, want)
			}
		}
	}
}

// Names of all lengths have the point of the string that they are in.
func TestPointOfNameIsTheHashOfTheName(t *testing.T) {
	for _, length := range []int{1, 40, 119, 120, 121, 122, 253, 309, 310, 400} {
		name := strings.Repeat("n", length-1) + "e"
		if got, want := PointOfName("team-17", name), HashOf(ByName)("team-17/"+name); got != want {
			t.Errorf("%d characters: the point is %#x, the hash of the name %#x", length, got, want)
		}
	}
}

func TestKeysDoNotAllocate(t *testing.T) {
	child := object("shop-"+strings.Repeat("n", 58), "cart-"+strings.Repeat("x", 248), "0b5a3f7c-6a0e-4a8b-9d55-27d1c3f0a911", controllerRef(object("shop", "cart", "uid-parent")))
	for _, ringKey := range []Key{ByName, ByNamespace, ByUID} {
		for _, k := range []Key{ringKey, ByController} {
			key, hash := resolve(t, k, ringKey), HashOf(ringKey)
			if n := testing.AllocsPerRun(100, func() { key.Point(child, hash) }); n != 0 {
				t.Errorf("%s on a ring by %s: %v allocations", k.Name(), ringKey.Name(), n)
			}
		}
	}
	if n := testing.AllocsPerRun(100, func() { PointOfName(child.Namespace, child.Name) }); n != 0 {
		t.Errorf("PointOfName: %v allocations", n)
	}
}

// kube-apiserver selects by ranges of this hash.
func TestByUIDHashesAsTheServerDoes(t *testing.T) {
	hash := HashOf(ByUID)
	check := func(s string) {
		t.Helper()
		if got, want := fmt.Sprintf("%016x", hash(s)), sharding.HashField(s); got != want {
			t.Errorf("hash of %q = %s, the server's %s", s, got, want)
		}
	}
	for _, s := range []string{"", "a", "foobar", "0b5a3f7c-6a0e-4a8b-9d55-27d1c3f0a911", "\x00\xff", strings.Repeat("long", 1000)} {
		check(s)
	}
	rng := rand.New(rand.NewPCG(2, 2))
	for range 1000 {
		b := make([]byte, 16)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		check(hex.EncodeToString(b))
	}
	// From the reference: http://www.isthe.com/chongo/tech/comp/fnv/
	if got := hash("foobar"); got != 0x85944171f73967e8 {
		t.Errorf("FNV-1a-64 of foobar = %#x", got)
	}
}

// Members on different processors must compute the same hash. For keys of more than 240
// bytes xxh3 uses vector instructions where available, so some keys here are longer.
func TestR1_NamesAreHashedWithXXH3(t *testing.T) {
	for _, c := range []struct {
		key  string
		want uint64
	}{
		// From the reference implementation (xxhsum -H3 of xxhash 0.8.1).
		{"", 0x2d06800538d394c2},
		{"abc", 0x78af5f94892f3950},
		{"default/example", 0x82a0b332c7069316},
		{"kube-system/some-rather-long-name-of-a-deployment", 0xa41098843fbf7398},
		{strings.Repeat("n", 63) + "/" + strings.Repeat("x", 253), 0x95185bf1426f41e9},
		{strings.Repeat("0123456789abcdef", 100), 0xfb6463c8a19ddf75},
	} {
		for _, k := range []Key{ByName, ByNamespace, byLabel} {
			if got := HashOf(k)(c.key); got != c.want {
				t.Errorf("hash of %.40q on a ring by %s = %#016x, want %#016x", c.key, k.Name(), got, c.want)
			}
		}
	}
}

// partitionCounts returns counts of every size, and a few random ones.
func partitionCounts(rng *rand.Rand) []int {
	counts := []int{1, 2, 3, 7, 63, 64, 65, 127, 128, 255, 256, 257, 509, 512, 1021, 4096, MaxPartitions - 1, MaxPartitions}
	for range 10 {
		counts = append(counts, 1+rng.IntN(MaxPartitions))
	}
	return counts
}

func TestR5_RangesTileTheSpace(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	space := new(big.Int).Lsh(big.NewInt(1), 64)
	for _, partitions := range partitionCounts(rng) {
		next := uint64(0)
		smallest, largest := uint64(math.MaxUint64), uint64(0)
		for p := range partitions {
			first, last := RangeOf(p, partitions)
			if first != next || last < first {
				t.Fatalf("partition %d of %d is %#x to %#x, but starts at %#x", p, partitions, first, last, next)
			}
			if PartitionOf(first, partitions) != p || PartitionOf(last, partitions) != p {
				t.Fatalf("partition %d of %d is %#x to %#x, but these points lie in the partitions %d and %d", p, partitions, first, last, PartitionOf(first, partitions), PartitionOf(last, partitions))
			}
			smallest, largest = min(smallest, last-first), max(largest, last-first)
			next = last + 1
		}
		if next != 0 {
			t.Fatalf("the last of %d partitions ends at %#x", partitions, next-1)
		}
		if largest-smallest > 1 {
			t.Errorf("the sizes of %d partitions range from %d to %d", partitions, smallest, largest)
		}
		// Compare with the definition, in arbitrary-precision arithmetic.
		for range 20 {
			point := rng.Uint64()
			want := new(big.Int).SetUint64(point)
			want.Mul(want, big.NewInt(int64(partitions))).Div(want, space)
			if got := PartitionOf(point, partitions); int64(got) != want.Int64() {
				t.Fatalf("PartitionOf(%#x, %d) = %d, want %d", point, partitions, got, want)
			}
		}
	}
}

func TestR5_PointsLieInTheRangeOfTheirPartition(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for range 10_000 {
		partitions, point := 1+rng.IntN(MaxPartitions), rng.Uint64()
		p := PartitionOf(point, partitions)
		if p < 0 || p >= partitions {
			t.Fatalf("PartitionOf(%#x, %d) = %d", point, partitions, p)
		}
		if first, last := RangeOf(p, partitions); point < first || point > last {
			t.Fatalf("%#x lies in partition %d of %d, which is %#x to %#x", point, p, partitions, first, last)
		}
	}
}

func TestR4_RangesThatDoNotExistAreEmpty(t *testing.T) {
	for _, c := range []struct{ partition, partitions int }{
		{-1, 5}, {5, 5}, {6, 5}, {0, 0}, {0, -1}, {-2, -1}, {math.MinInt, math.MaxInt}, {math.MaxInt, math.MaxInt}, {math.MinInt, math.MinInt}, {math.MaxInt, 1},
	} {
		if first, last := RangeOf(c.partition, c.partitions); first <= last {
			t.Errorf("RangeOf(%d, %d) = %#x to %#x", c.partition, c.partitions, first, last)
		}
	}
	if first, last := RangeOf(math.MaxInt-1, math.MaxInt); last != math.MaxUint64 || first > last {
		t.Errorf("RangeOf(MaxInt-1, MaxInt) = %#x to %#x", first, last)
	}
}

// The server's ranges are half-open, in hexadecimal: what a range matches there
// must lie in the partition here.
func TestR5_RangesMatchTheServersSelector(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	const partitions = 7
	for p := range partitions {
		first, last := RangeOf(p, partitions)
		end := "0x10000000000000000"
		if last != math.MaxUint64 {
			end = fmt.Sprintf("0x%016x", last+1)
		}
		selector := sharding.NewSelector(sharding.ShardRangeRequirement{Key: "object.metadata.uid", Start: fmt.Sprintf("0x%016x", first), End: end})
		for range 200 {
			o := &metav1.PartialObjectMetadata{ObjectMeta: *object("shop", "cart", fmt.Sprintf("%016x", rng.Uint64()))}
			matches, err := selector.Matches(o)
			if err != nil {
				t.Fatal(err)
			}
			if mine := PartitionOf(ByUID.Point(o, HashOf(ByUID)), partitions) == p; mine != matches {
				t.Fatalf("UID %s: the server's selector of partition %d matches: %v, in the partition: %v", o.UID, p, matches, mine)
			}
		}
	}
}
