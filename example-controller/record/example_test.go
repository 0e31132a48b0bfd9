// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tom-ludwig/operator-scaling/example-controller/record"
)

func Example() {
	dir, err := os.MkdirTemp("", "record")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "op-0.records")

	w, err := record.Open(path, func() string { return "op-0_1f3c" })
	if err != nil {
		fmt.Println(err)
		return
	}
	w.Append(record.Record{Event: record.Activate, Partitions: []int{17}})
	ended := w.Work(record.Record{Key: "default/foo", Version: "3", Partitions: []int{17}})
	// ... the work ...
	ended(nil)
	if err := w.Close(); err != nil {
		fmt.Println(err)
		return
	}

	text, _ := os.ReadFile(path)
	for line := range bytes.Lines(text) {
		_, withoutTime, _ := bytes.Cut(line, []byte(","))
		fmt.Printf("%s", withoutTime)
	}
	// Output:
	// "e":"activate","member":"op-0_1f3c","partitions":[17]}
	// "e":"start","member":"op-0_1f3c","key":"default/foo","rv":"3","partitions":[17]}
	// "e":"end","member":"op-0_1f3c","key":"default/foo","rv":"3","partitions":[17]}
}
