// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos_test

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/chaos"
)

// TestShortRun is the short form of make chaos: every fault once.
func TestShortRun(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some minutes")
	}
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir := os.Getenv("CHAOS_KEEP")
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "chaos-"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if t.Failed() {
				t.Logf("the picture, the logs and the records are in %s", dir)
			} else {
				_ = os.RemoveAll(dir)
			}
		}()
	}
	r, err := chaos.Run(ctx, chaos.Options{
		Dir: dir, Duration: time.Second, Outage: 12 * time.Second,
		Seed: uint64(time.Now().UnixNano() % 1e6), Progress: progress{t},
	})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + text.String())
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{chaos.TextFile, chaos.JSONFile, chaos.TimelineFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s was not written: %v", name, err)
		}
	}
}

// progress shows the lines of a run with the test's.
type progress struct{ t *testing.T }

func (p progress) Write(line []byte) (int, error) {
	p.t.Log(strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}

func TestInterruptedRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := chaos.Run(ctx, chaos.Options{Dir: t.TempDir()}); err == nil {
		t.Error("a run that was interrupted has a result")
	}
}
