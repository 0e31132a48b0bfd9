// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// readEvery is the time between two reads of a file of records.
const readEvery = 50 * time.Millisecond

// follow adds each reconcile that a replica records to the board, until ctx ends.
func follow(ctx context.Context, b *board, m int, path string) error {
	var t tailer
	defer t.close()
	for {
		if err := t.read(path, func(r worklog.Record) {
			if r.Event == worklog.End {
				b.worked(m, r.Key, time.Now())
			}
		}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(readEvery):
		}
	}
}

// tailer reads a file of records as it grows.
type tailer struct {
	file *os.File
	rest []byte // the incomplete line
}

// read passes on the records that were added since the last call. A file that does not
// exist yet has none.
func (t *tailer) read(path string, to func(worklog.Record)) error {
	if t.file == nil {
		file, err := os.Open(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		t.file = file
	}
	added, err := io.ReadAll(t.file)
	if err != nil {
		return err
	}
	t.rest = append(t.rest, added...)
	for {
		text, rest, complete := bytes.Cut(t.rest, []byte("\n"))
		if !complete {
			return nil
		}
		var r worklog.Record
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("read record %q of %s: %w", text, path, err)
		}
		to(r)
		t.rest = rest
	}
}

func (t *tailer) close() {
	if t.file != nil {
		_ = t.file.Close() // only read, so nothing is lost
	}
}
