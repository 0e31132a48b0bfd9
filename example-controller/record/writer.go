// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
)

// Writer appends records to a file. A nil *Writer writes nothing.
type Writer struct {
	member func() string
	file   *os.File

	mu  sync.Mutex
	err error // the first failure to write
}

// Open opens a file to append records to; it is created if need be. member is
// asked for each record who the process is at that moment: an identity changes
// when a member that lost its place joins again.
func Open(path string, member func() string) (*Writer, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open file for records: %w", err)
	}
	return &Writer{member: member, file: file}, nil
}

// Append stamps a record with the time, and with the member unless it names one, and writes it. A failure is
// kept for [Writer.Close]: a check of incomplete records proves nothing.
func (w *Writer) Append(r Record) {
	if w == nil {
		return
	}
	if r.Member == "" {
		r.Member = w.member()
	}
	// The lock makes times and lines have the same order.
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

// Work records that the work described by r begins. The function that it returns
// records its end and must be called when nothing more will be done.
func (w *Writer) Work(r Record) (ended func(error)) {
	if w == nil {
		return func(error) {}
	}
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

// Close closes the file and returns the first error that there was.
func (w *Writer) Close() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.err, w.file.Close())
}
