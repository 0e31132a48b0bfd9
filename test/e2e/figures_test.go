// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// table collects measurements in the order in which they were taken.
type table struct {
	mu   sync.Mutex
	rows [][3]string
}

// figures is printed at the end of the run.
var figures table

// add adds a row. target may be empty.
func (t *table) add(what, value, target string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, [3]string{what, value, target})
}

func (t *table) print() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.rows) == 0 {
		return
	}
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nFIGURE\tMEASURED\tTARGET")
	for _, r := range t.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r[0], r[1], r[2])
	}
	_ = w.Flush() // writes to a buffer do not fail
	fmt.Println(text.String())
	if path := os.Getenv("E2E_FIGURES"); path != "" {
		if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
	}
}

// quantiles formats p50, p99 and the maximum of the times.
func quantiles(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	sorted := slices.Sorted(slices.Values(times))
	at := func(percent int) time.Duration {
		return sorted[(len(sorted)*percent+99)/100-1].Round(time.Millisecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v, max %v (%d)", at(50), at(99), at(100), len(sorted))
}
