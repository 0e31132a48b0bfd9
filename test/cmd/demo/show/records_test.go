// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

func TestTailerReadsCompleteLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.record")
	var reader tailer
	defer reader.close()
	read := func() (keys []string) {
		t.Helper()
		if err := reader.read(path, func(r worklog.Record) { keys = append(keys, r.Key) }); err != nil {
			t.Fatal(err)
		}
		return keys
	}
	if got := read(); got != nil {
		t.Errorf("a missing file has %v", got)
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, c := range []struct {
		text string
		want []string
	}{
		{`{"e":"start","key":"a"}` + "\n" + `{"e":"end",`, []string{"a"}},
		{`"key":"b"}`, nil},
		{"\n" + `{"key":"c"}` + "\n", []string{"b", "c"}},
	} {
		if _, err := file.WriteString(c.text); err != nil {
			t.Fatal(err)
		}
		if got := read(); !slices.Equal(got, c.want) {
			t.Errorf("after %q: %v, want %v", c.text, got, c.want)
		}
	}
}

// The demo must report a violated guarantee.
func TestJudgeFindsViolations(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, death int64, lines string) *replica {
		r := &replica{name: name, record: filepath.Join(dir, name), death: death}
		if err := os.WriteFile(r.record, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		return r
	}
	replicas := []*replica{
		write("m0", 100, `{"t":1,"e":"start","key":"d/a","rv":"1"}`+"\n"+`{"t":9,"e":"end","key":"d/a","rv":"1"}`+"\n"),
		write("m1", 100, `{"t":5,"e":"start","key":"d/a","rv":"1"}`+"\n"+`{"t":7,"e":"end","key":"d/a","rv":"1"}`+"\n"),
	}
	final := []v1alpha1.Foo{{}}
	final[0].Namespace, final[0].Name, final[0].Generation = "d", "a", 2
	v, err := judge(replicas, final)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.overlaps) != 1 || len(v.forgotten) != 1 || v.reconciles != 2 || !slices.Equal(v.by, []int{1, 1}) {
		t.Errorf("%+v", v)
	}
}
