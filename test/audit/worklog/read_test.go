// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadReadsWhatWriterWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "op-0.records")
	w, err := Open(path, func() string { return "op-0_1" })
	if err != nil {
		t.Fatal(err)
	}
	w.Work(Record{Key: "default/a", Version: "3", Token: "8", Partitions: []int{0}})(nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := Check([]Process{p}, Options{Final: map[string]string{"default/a": "3"}})
	if err := r.Err(); err != nil || r.Reconciles != 1 || p.Name != "op-0" {
		t.Errorf("%d reconciles of %q, %v", r.Reconciles, p.Name, err)
	}
}

func TestReadIgnoresATornLine(t *testing.T) {
	const line = `{"t":5,"e":"join","member":"a"}` + "\n"
	p, err := Read("a", strings.NewReader(line+line[:12]))
	if err != nil {
		t.Fatal(err)
	}
	want := Process{Name: "a", Records: []Record{{Time: 5, Event: Join, Member: "a"}}}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("process (-want +got):\n%s", diff)
	}
	if _, err := Read("a", strings.NewReader(line+"{\n"+line)); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a broken line in the middle: %v, want an error that names line 2", err)
	}
	if _, err := ReadFile(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("a missing file: %v", err)
	}
}
