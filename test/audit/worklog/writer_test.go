// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func identity() string { return "op-0_1" }

func readLines(t *testing.T, path string) []Record {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var records []Record
	for line := range bytes.Lines(text) {
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		records = append(records, r)
	}
	return records
}

func TestW1_OneLinePerRecordInTimeOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	for range 2 { // a second process appends
		w, err := Open(path, identity)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					w.Work(Record{Key: "default/a", Version: "1", Partitions: []int{0}})(nil)
				}
			})
		}
		wg.Wait()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	records := readLines(t, path)
	if len(records) != 2*8*50*2 {
		t.Errorf("%d records, want %d", len(records), 2*8*50*2)
	}
	for i := range records[1:] {
		if records[i].Time > records[i+1].Time {
			t.Fatalf("record %d at %d, the next at %d", i, records[i].Time, records[i+1].Time)
		}
	}
}

func TestW2_StartBeforeEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	w, err := Open(path, identity)
	if err != nil {
		t.Fatal(err)
	}
	work := Record{Key: "default/a", Version: "7", Token: "12", Partitions: []int{0}}
	ended := w.Work(work)
	if got := len(readLines(t, path)); got != 1 {
		t.Fatalf("%d records when the work begins, want 1", got)
	}
	begun := Now()
	ended(errors.New("conflict"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	got := readLines(t, path)
	if !(got[0].Time <= begun && begun <= got[1].Time) {
		t.Errorf("start at %d and end at %d, with work at %d", got[0].Time, got[1].Time, begun)
	}
	start, end := work, work
	start.Event, start.Member = Start, identity()
	end.Event, end.Member, end.Error = End, identity(), "conflict"
	got[0].Time, got[1].Time = 0, 0
	if diff := cmp.Diff([]Record{start, end}, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func TestW3_NowRunsWithRealTime(t *testing.T) {
	before, begin := time.Now(), Now()
	time.Sleep(time.Millisecond)
	took, real := time.Duration(Now()-begin), time.Since(before)
	if took < time.Millisecond || took > real {
		t.Errorf("Now counted %s in at most %s", took, real)
	}
}

func TestCloseReturnsTheFirstError(t *testing.T) {
	w, err := Open(filepath.Join(t.TempDir(), "records"), identity)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.file.Close(); err != nil {
		t.Fatal(err)
	}
	w.Append(Record{Event: Join})
	if err := w.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Close returned %v, want the failed write", err)
	}
	if _, err := Open(t.TempDir(), identity); err == nil {
		t.Error("Open accepted a directory")
	}
}
