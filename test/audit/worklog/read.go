// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Process has the records of one replica process, and what is known about it.
// Times are those of [Now].
type Process struct {
	// Name is its name in the report; it should be unique.
	Name string
	// Records are ordered by time.
	Records []Record

	// Death is a time at which the process was certainly no longer running, for example
	// when the parent had waited for it. 0: it ran until the end.
	Death int64
	// Pauses are the times in which the process was certainly not running, in order.
	Pauses []Pause
}

// Pause is a time in which a process was stopped: after SIGSTOP was sent, and
// before SIGCONT was. To is 0 if it was never resumed.
type Pause struct{ From, To int64 }

func (p Pause) end() int64 {
	if p.To == 0 {
		return 1<<63 - 1
	}
	return p.To
}

// ReadFile reads the records of a process. The process gets the name of the file.
func ReadFile(path string) (Process, error) {
	f, err := os.Open(path)
	if err != nil {
		return Process{}, err
	}
	defer func() { _ = f.Close() }()
	name := filepath.Base(path)
	return Read(strings.TrimSuffix(name, filepath.Ext(name)), f)
}

// Read reads the records of a process. It ignores an incomplete last line, because what
// that line would have recorded had not happened yet. Any other defect is an error.
func Read(name string, text io.Reader) (Process, error) {
	p := Process{Name: name}
	lines := bufio.NewReader(text)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return p, fmt.Errorf("read the records of %s: %w", name, err)
		}
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			return p, fmt.Errorf("line %d of the records of %s: %w", n, name, err)
		}
		p.Records = append(p.Records, r)
	}
}
