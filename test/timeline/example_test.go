// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline_test

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/timeline"
)

// A replica is killed; the chart shows when, and that no other replica took over its
// partitions.
func Example() {
	a, err := worklog.Read("op-0.001", strings.NewReader(`
{"t":1000000,"e":"activate","member":"op-0_1f3c","partitions":[0,1]}
{"t":9000000,"e":"release","member":"op-0_1f3c","partitions":[1]}
`[1:]))
	if err != nil {
		fmt.Println(err)
		return
	}
	a.Death = 12000000
	run := timeline.Run{
		Title:  "one replica",
		Report: worklog.Check([]worklog.Process{a}, worklog.Options{End: 20000000}),
		Faults: []timeline.Fault{{Name: "SIGKILL", Target: a.Name, From: 11000000}},
	}
	var page bytes.Buffer // or a file
	if err := timeline.Write(&page, run); err != nil {
		fmt.Println(err)
		return
	}
	_, owned, _ := strings.Cut(page.String(), `<g class="owned">`)
	owned, _, _ = strings.Cut(owned, "</g>")
	fmt.Println(owned) // in milliseconds and pixels
	// Output:
	// <g class="c0" data-process="op-0.001"><title>op-0.001</title>
	// <rect x="0" y="10" width="8" height="10"/>
	// <rect x="0" y="0" width="11" height="10" data-end="death"/>
}
