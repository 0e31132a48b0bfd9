// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestR4_ImpossibleParametersAreNamed(t *testing.T) {
	if err := DefaultParameters().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	if err := parameters(MaxPartitions, MaxVirtualNodes, math.MaxFloat64).Validate(); err != nil {
		t.Errorf("the maxima: %v", err)
	}
	if err := parameters(1, 1, 1).Validate(); err != nil {
		t.Errorf("the minima: %v", err)
	}
	for _, k := range []Key{ByName, ByNamespace, ByUID, byLabel, ByFunc("v1.2-x", byLabel.of)} {
		p := DefaultParameters()
		p.Key = k.Name()
		if err := p.Validate(); err != nil {
			t.Errorf("key %q: %v", k.Name(), err)
		}
	}

	type fault struct {
		change func(*Parameters)
		want   string
	}
	faults := map[string]fault{
		"no partitions":              {func(p *Parameters) { p.Partitions = 0 }, "Partitions: 0 "},
		"negative partitions":        {func(p *Parameters) { p.Partitions = math.MinInt }, "Partitions: -"},
		"too many partitions":        {func(p *Parameters) { p.Partitions = MaxPartitions + 1 }, "Partitions: 65537 "},
		"no virtual nodes":           {func(p *Parameters) { p.VirtualNodes = 0 }, "VirtualNodes: 0 "},
		"too many virtual nodes":     {func(p *Parameters) { p.VirtualNodes = MaxVirtualNodes + 1 }, "VirtualNodes: 1001 "},
		"no load":                    {func(p *Parameters) { p.Load = 0 }, "Load: 0 "},
		"load just below 1":          {func(p *Parameters) { p.Load = math.Nextafter(1, 0) }, "Load: 0.99"},
		"negative load":              {func(p *Parameters) { p.Load = -2 }, "Load: -2 "},
		"load is not a number":       {func(p *Parameters) { p.Load = math.NaN() }, "Load: NaN "},
		"infinite load":              {func(p *Parameters) { p.Load = math.Inf(1) }, "Load: +Inf "},
		"no key":                     {func(p *Parameters) { p.Key = "" }, `Key: name ""`},
		"key in capitals":            {func(p *Parameters) { p.Key = "Name" }, `Key: name "Name"`},
		"key with a slash":           {func(p *Parameters) { p.Key = "a/b" }, `Key: name "a/b"`},
		"key with a line break":      {func(p *Parameters) { p.Key = "name\n" }, `Key: name "name\n"`},
		"key of ByFunc without name": {func(p *Parameters) { p.Key = ByFunc("", nil).Name() }, `Key: name "" must be 1 to 56 `},
		"key of ByFunc with a space": {func(p *Parameters) { p.Key = ByFunc("my key", nil).Name() }, `Key: name "my key" must be 1 to 56 `},
		"long key":                   {func(p *Parameters) { p.Key = strings.Repeat("k", 64) }, "Key: name"},
		"very long key":              {func(p *Parameters) { p.Key = strings.Repeat("k", 1<<20) }, "Key: name"},
		"key relative to the ring's": {func(p *Parameters) { p.Key = ByController.Name() }, `Key: "controller"`},
		"key of a cluster-scoped":    {func(p *Parameters) { p.Key = ByClusterController.Name() }, `Key: "cluster-controller"`},
	}
	for name, f := range faults {
		p := DefaultParameters()
		f.change(&p)
		err := p.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), f.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line that starts with %q", name, err, f.want)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d characters", name, len(err.Error()))
		}
		if r, err := New(p, statefulSet(2)); err == nil || r != nil {
			t.Errorf("%s: New has no error", name)
		}
	}

	err := Parameters{}.Validate()
	for _, want := range []string{"Key:", "Partitions:", "VirtualNodes:", "Load:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the zero Parameters: error %v does not name %q", err, want)
		}
	}
}

func TestFingerprintRoundTrips(t *testing.T) {
	uid := DefaultParameters()
	uid.Key = ByUID.Name()
	longest := parameters(MaxPartitions, MaxVirtualNodes, 1.0000000000000002e+300)
	longest.Key = strings.Repeat("k", 63)
	for _, c := range []struct {
		p    Parameters
		want string // "": any
	}{
		{DefaultParameters(), "xxh3/name/509/20/1.25/consistent-v1.1.0"},
		{uid, "fnv1a/uid/509/20/1.25/consistent-v1.1.0"},
		{parameters(1, 1, 1), "xxh3/name/1/1/1/consistent-v1.1.0"},
		{parameters(1021, 100, 1e21), "xxh3/name/1021/100/1e+21/consistent-v1.1.0"},
		{parameters(509, 20, math.Nextafter(1.25, 2)), ""},
		{parameters(509, 20, 0.1+1), ""},
		{longest, ""},
	} {
		text := c.p.Fingerprint()
		if c.want != "" && text != c.want {
			t.Errorf("fingerprint %q, want %q", text, c.want)
		}
		if len(text) > maxFingerprint {
			t.Errorf("fingerprint of %d characters", len(text))
		}
		got, err := ParseFingerprint(text)
		if err != nil || got != c.p {
			t.Errorf("ParseFingerprint(%q) = %+v, %v, want %+v", text, got, err, c.p)
		}
	}
}

func TestDifferentParametersHaveDifferentFingerprints(t *testing.T) {
	seen := make(map[string]Parameters)
	for _, key := range []string{"name", "namespace", "uid", "custom-a", "custom-b"} {
		for _, partitions := range []int{509, 5, 510} {
			for _, virtualNodes := range []int{20, 2, 21} {
				for _, load := range []float64{1.25, math.Nextafter(1.25, 2), 1, 12.5} {
					p := Parameters{key, partitions, virtualNodes, load}
					text := p.Fingerprint()
					if other, found := seen[text]; found {
						t.Errorf("%+v and %+v have the fingerprint %q", p, other, text)
					}
					seen[text] = p
				}
			}
		}
	}
}

func TestR1_FingerprintsOfOtherVersionsAreRejected(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                     "",
		"a field too few":           "xxh3/name/509/20/1.25",
		"a field too many":          "xxh3/name/509/20/1.25/consistent-v1.1.0/",
		"an earlier library":        "xxh3/name/509/20/1.25/consistent-v0.10.0",
		"a later library":           "xxh3/name/509/20/1.25/consistent-v1.2.0",
		"an unknown library":        "xxh3/name/509/20/1.25/consistent-0123456789abcdef",
		"another hash":              "fnv1a/name/509/20/1.25/consistent-v1.1.0",
		"another hash of UIDs":      "xxh3/uid/509/20/1.25/consistent-v1.1.0",
		"an unknown hash":           "sha1/name/509/20/1.25/consistent-v1.1.0",
		"a relative key":            "xxh3/controller/509/20/1.25/consistent-v1.1.0",
		"a bad key":                 "xxh3/Name/509/20/1.25/consistent-v1.1.0",
		"a leading zero":            "xxh3/name/0509/20/1.25/consistent-v1.1.0",
		"a sign":                    "xxh3/name/+509/20/1.25/consistent-v1.1.0",
		"an underscore":             "xxh3/name/5_09/20/1.25/consistent-v1.1.0",
		"another way to write load": "xxh3/name/509/20/1.250/consistent-v1.1.0",
		"hexadecimal load":          "xxh3/name/509/20/0x1.4p0/consistent-v1.1.0",
		"infinite load":             "xxh3/name/509/20/+Inf/consistent-v1.1.0",
		"load is not a number":      "xxh3/name/509/20/NaN/consistent-v1.1.0",
		"too large a load":          "xxh3/name/509/20/1e999/consistent-v1.1.0",
		"too small a load":          "xxh3/name/509/20/0.5/consistent-v1.1.0",
		"no partitions":             "xxh3/name/0/20/1.25/consistent-v1.1.0",
		"too many partitions":       "xxh3/name/65537/20/1.25/consistent-v1.1.0",
		"overflow":                  "xxh3/name/99999999999999999999/20/1.25/consistent-v1.1.0",
		"too many virtual nodes":    "xxh3/name/509/1001/1.25/consistent-v1.1.0",
		"words":                     "xxh3/name/many/some/little/consistent-v1.1.0",
		"spaces":                    " xxh3/name/509/20/1.25/consistent-v1.1.0 ",
		"long":                      "xxh3/name/" + strings.Repeat("9", 1<<20) + "/20/1.25/consistent-v1.1.0",
		"long garbage":              strings.Repeat("/", 1<<20),
	} {
		p, err := ParseFingerprint(text)
		if err == nil {
			t.Errorf("%s: ParseFingerprint(%q) = %+v", name, text, p)
		} else if p != (Parameters{}) {
			t.Errorf("%s: parameters %+v in addition to an error", name, p)
		} else if !strings.HasPrefix(err.Error(), "ring parameters ") || len(err.Error()) > 1000 {
			t.Errorf("%s: error of %d characters %.200q", name, len(err.Error()), err)
		}
	}
}

// Equal fingerprints must mean equal rings: the library version in a fingerprint must be right.
func TestR1_PlacementNamesTheLibrary(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`(?m)^\s*(?:require )?github\.com/buraksezer/consistent (v\S+)`).FindSubmatch(mod)
	if match == nil {
		t.Fatal("go.mod does not require github.com/buraksezer/consistent")
	}
	if want := "consistent-" + string(match[1]); placement != want {
		t.Errorf("placement is %q, go.mod selects %q.\nIf TestR1_GoldenPlacement passes, then the new version computes the same placement as the old one, and placement keeps its name: "+
			"a new name would make fleets switch without need. Let this test accept both. Otherwise change placement, placementSample and the golden values.", placement, want)
	}
	if got := sampleOfPlacement(); got != placementSample {
		t.Errorf("the placement sample is %#016x, want %#016x", got, uint64(placementSample))
	}
	if placementInUse() != placement {
		t.Errorf("fingerprints contain %q, want %q", placementInUse(), placement)
	}
}

func TestSameKeys(t *testing.T) {
	p, q := DefaultParameters(), parameters(1021, 100, 2)
	if !p.SameKeys(q) || !q.SameKeys(p) {
		t.Error("only the key must decide")
	}
	q = p
	q.Key = ByNamespace.Name()
	if p.SameKeys(q) || q.SameKeys(p) {
		t.Error("name and namespace are the same key")
	}
}
