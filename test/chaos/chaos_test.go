// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/chaos"
)

// short has the faults of the short form of make chaos: a crash, a pause, a stop, and
// Lease writes that do not arrive.
var short = []string{
	"SIGKILL, comes back as another Pod", "SIGSTOP past the fence", "SIGTERM, comes back as another Pod", "Lease writes: black hole",
}

// TestShortRun injects every fault once, and with -short only some.
func TestShortRun(t *testing.T) {
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir := os.Getenv("CHAOS_KEEP")
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "chaos-"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if t.Failed() && ctx.Err() == nil {
				t.Logf("the timeline, the logs and the records are in %s", dir)
			} else {
				_ = os.RemoveAll(dir)
			}
		}()
	}
	for try := 1; ; try++ {
		run := filepath.Join(dir, fmt.Sprint("run-", try))
		o := chaos.Defaults()
		o.Dir, o.Duration, o.Outage = run, time.Second, 12*time.Second
		o.Seed, o.Progress = uint64(time.Now().UnixNano()%1e6), progress{t}
		if testing.Short() {
			o.Kinds = short
		}
		r, err := chaos.Run(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Log("\n" + r.Text())
		if tooSlow(r) && try < 5 {
			t.Logf("run %d does not count, because the machine was too slow: %v", try, r.Err())
			continue
		}
		if err := r.Err(); err != nil {
			t.Errorf("%v\n%s", err, serverLogs(run))
		}
		for _, name := range []string{chaos.TextFile, chaos.JSONFile, chaos.TimelineFile} {
			if info, err := os.Stat(filepath.Join(run, name)); err != nil || info.Size() == 0 {
				t.Errorf("%s was not written: %v", name, err)
			}
		}
		return
	}
}

// tooSlow reports whether a run failed only because the machine was so slow that too
// little happened in it. Such a run proves nothing and may be repeated.
func tooSlow(r *chaos.Result) bool {
	return len(r.Breaches) > 0 && !slices.ContainsFunc(r.Breaches, func(b chaos.Breach) bool { return b.Check != "V6" })
}

// serverLogs returns the last part of each server's log.
func serverLogs(dir string) string {
	var text strings.Builder
	logs, _ := filepath.Glob(filepath.Join(dir, "control-plane", "*.log")) // the pattern is valid
	for _, path := range logs {
		content, err := os.ReadFile(path)
		if err != nil {
			content = []byte(err.Error())
		}
		fmt.Fprintf(&text, "end of %s:\n%s\n", path, content[max(0, len(content)-4000):])
	}
	return text.String()
}

// progress writes the progress of a run to the test's log.
type progress struct{ t *testing.T }

func (p progress) Write(line []byte) (int, error) {
	p.t.Log(strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}

func TestInterruptedRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := chaos.Defaults()
	o.Dir = t.TempDir()
	if _, err := chaos.Run(ctx, o); err == nil {
		t.Error("an interrupted run returned a result")
	}
}
