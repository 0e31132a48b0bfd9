// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package checker_test

import (
	"fmt"
	"os"
	"strings"

	"github.com/tom-ludwig/operator-scaling/test/checker"
)

// Two processes work on one object at the same time, and the second one fails.
func Example() {
	a, err := checker.Read("a", strings.NewReader(`
{"t":1000000,"e":"start","member":"a_1","key":"default/foo","rv":"1"}
{"t":5000000,"e":"end","member":"a_1","key":"default/foo","rv":"1"}
`[1:]))
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := checker.Read("b", strings.NewReader(`
{"t":3000000,"e":"start","member":"b_1","key":"default/foo","rv":"2"}
{"t":9000000,"e":"end","member":"b_1","key":"default/foo","rv":"2","err":"conflict"}
`[1:]))
	if err != nil {
		fmt.Println(err)
		return
	}

	report := checker.Check([]checker.Process{a, b}, checker.Options{
		Final: map[string]string{"default/foo": "2"},
	})
	if err := report.WriteText(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 8ms: 2 processes, 1 keys, 2 reconciles (1 failed)
	// handovers: 0 of partitions, 1 of keys
	// reconciles per key: 2 on 1 keys
	//
	// PROCESS  RECONCILES  FAILED  KEYS  GAINED  RELEASED  OWNED  FENCED  END
	// a        1           0       1     0       0         0      0       running
	// b        1           1       1     0       0         0      0       running
	//
	//      1  overlapping work
	//         default/foo, for 2ms at 2ms: a from 0s to 4ms, b from 2ms to 8ms
	//      0  partition active on two members
	//      0  token decreased
	//      1  last version not processed
	//         default/foo: is at version 2, last processed at version 1
	//      0  impossible record
	//      0  version decreased
	//      0  times without an owner
}
