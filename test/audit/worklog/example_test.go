// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// Two processes work on one object at the same time, and the second one fails.
func ExampleCheck() {
	a, err := worklog.Read("a", strings.NewReader(`
{"t":1000000,"e":"start","member":"a_1","key":"default/foo","rv":"1"}
{"t":5000000,"e":"end","member":"a_1","key":"default/foo","rv":"1"}
`[1:]))
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := worklog.Read("b", strings.NewReader(`
{"t":3000000,"e":"start","member":"b_1","key":"default/foo","rv":"2"}
{"t":9000000,"e":"end","member":"b_1","key":"default/foo","rv":"2","err":"conflict"}
`[1:]))
	if err != nil {
		fmt.Println(err)
		return
	}

	report := worklog.Check([]worklog.Process{a, b}, worklog.Options{
		Final: map[string]string{"default/foo": "2"},
	})
	fmt.Printf("%d reconciles, %d failed\n", report.Reconciles, report.Failed)
	fmt.Print(report.Err())
	// Output:
	// 2 reconciles, 1 failed
	// findings:
	//      1  F1 overlapping work
	//         default/foo: for 2ms at 2ms: a from 0s to 4ms, b from 2ms to 8ms
	//      1  F4 last version not processed
	//         default/foo: is at version 2, last processed at version 1
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "record")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "op-0.records")

	w, err := worklog.Open(path, func() string { return "op-0_1f3c" })
	if err != nil {
		fmt.Println(err)
		return
	}
	w.Append(worklog.Record{Event: worklog.Activate, Partitions: []int{17}})
	ended := w.Work(worklog.Record{Key: "default/foo", Version: "3", Partitions: []int{17}})
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
