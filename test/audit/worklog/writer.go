// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
)

// Writer appends records to a file.
type Writer struct {
	member func() string
	file   *os.File

	mu  sync.Mutex
	err error // the first failure to write
}

// Open opens a file for appending records, and creates it if necessary. member is called for
// each record and returns the current identity of the process: the identity changes when the
// member loses its Lease and joins again.
func Open(path string, member func() string) (*Writer, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open file for records: %w", err)
	}
	return &Writer{member: member, file: file}, nil
}

// Append sets the record's time, and its member if that is empty, and writes the record. [Writer.Close]
// returns the first error: a check of incomplete records proves nothing.
func (w *Writer) Append(r Record) {
	if r.Member == "" {
		r.Member = w.member()
	}
	// The lock gives times and lines the same order.
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Time = Now()
	line, err := json.Marshal(r)
	if err == nil {
		_, err = w.file.Write(append(line, '\n'))
	}
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("write record: %w", err)
	}
}

// Work records the start of the work described by r. The returned function records its end. Call
// it when nothing more will be done.
func (w *Writer) Work(r Record) (ended func(error)) {
	r.Event = Start
	w.Append(r)
	return func(err error) {
		r.Event = End
		if err != nil {
			r.Error = err.Error()
		}
		w.Append(r)
	}
}

// Close closes the file and returns the first write error, if any, joined with the error of closing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.err, w.file.Close())
}
