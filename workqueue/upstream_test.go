// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// TestQ9_UpstreamWorkqueue runs client-go's own queue tests on queues of this package whose
// member owns everything. The tests are read from the module cache, edited, and built outside
// the tree, so that the repository contains no copy.
//
// These tests are not run, because they use or replace unexported code:
//
//   - TestRateLimitingQueue builds a delaying layer by hand and reads its channel;
//     TestRateLimits here makes the same calls.
//   - TestMetricShutdown passes a stub for unexported metrics to an unexported
//     constructor. TestMetrics runs, and TestQ10_ShutDown checks that the goroutine ends.
//   - The tests of rate limiters and of the parallelizer are not about queues.
func TestQ9_UpstreamWorkqueue(t *testing.T) {
	upstream := filepath.Join(strings.TrimSpace(run(t, ".", "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/client-go")), "util", "workqueue")
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	// A package that exists only in the overlay.
	out, virtual := t.TempDir(), filepath.Join(here, "upstream")
	overlay := map[string]string{}
	add := func(name string, source []byte) {
		path := filepath.Join(out, name)
		if err := os.WriteFile(path, source, 0o600); err != nil {
			t.Fatal(err)
		}
		overlay[filepath.Join(virtual, name)] = path
	}
	add("harness_test.go", []byte(harness))
	expected := map[string]bool{}
	for _, d := range derivations {
		source, tests := d.derive(t, filepath.Join(upstream, d.file))
		add(d.file, source)
		for _, test := range tests {
			expected[test] = true
		}
	}
	if len(expected) < 16 {
		t.Errorf("only %d tests were found: %v", len(expected), slices.Sorted(maps.Keys(expected)))
	}

	config, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile, binary := filepath.Join(out, "overlay.json"), filepath.Join(out, "upstream.test")
	if err := os.WriteFile(overlayFile, config, 0o600); err != nil {
		t.Fatal(err)
	}
	// Vet would run in a directory that does not exist.
	build := []string{"test", "-c", "-vet=off", "-overlay", overlayFile, "-o", binary}
	if underRace() {
		build = append(build, "-race")
	}
	run(t, here, "go", append(build, "./upstream")...)
	output := runUpstream(t, out, binary)
	for test := range expected {
		if !strings.Contains(output, "--- PASS: "+test+" ") {
			t.Errorf("%s did not pass", test)
		}
	}
}

// runUpstream runs client-go's tests and returns their output. They wait in real time, 10 ms
// or 2 s, until something must have happened. On a slow machine that may be too short, so
// failed tests are run again a few times. A data race or a panic fails at once.
func runUpstream(t *testing.T, dir, binary string) (output string) {
	t.Helper()
	pattern := "."
	for try := 1; ; try++ {
		command := exec.CommandContext(t.Context(), binary, "-test.v", "-test.timeout=20m", "-test.run="+pattern)
		command.Dir = dir
		text, err := command.CombinedOutput()
		output += string(text)
		if err == nil {
			return output
		}
		if try == 5 || strings.Contains(output, "WARNING: DATA RACE") || strings.Contains(output, "\npanic: ") {
			t.Fatalf("%s: %v\n%s", binary, err, output)
		}
		var failed []string
		for _, test := range regexp.MustCompile(`(?m)^--- FAIL: (\w+)`).FindAllStringSubmatch(string(text), -1) {
			failed = append(failed, "^"+test[1]+"$")
		}
		pattern = "." // for example, a goroutine was left running
		if len(failed) > 0 {
			pattern = strings.Join(failed, "|")
		}
		t.Logf("try %d: client-go's tests %v failed; running them again:\n%s", try, failed, text)
	}
}

// derivation describes how to turn a file of client-go into a test of this package.
type derivation struct {
	file   string
	remove []string // functions
	edits  []edit
}

type edit struct{ old, new string }

// inside turns a test in client-go's package into a test outside it.
var inside = edit{"package workqueue\n\nimport (", "package workqueue_test\n\nimport (\n\t. \"k8s.io/client-go/util/workqueue\"\n"}

var derivations = []derivation{
	{
		file: "queue_test.go",
		edits: []edit{
			{"*workqueue.Type\n", "workqueue.Interface\n"},
			{"workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[string]{})", "newTyped[string]()"},
			{"workqueue.NewWithConfig(", "newWithConfig("},
			{"workqueue.New()", "newTyped[any]()"},
			// The storage of this package's queue cannot be replaced, so nothing is touched.
			{"if _, ok := tq.touched[\"bar\"]; !ok {", "if _, ok := tq.touched[\"bar\"]; ok {"},
		},
	},
	{
		file:   "delaying_queue_test.go",
		remove: []string{"waitForWaitingQueueToFill"}, // the harness has one
		edits: []edit{
			inside,
			{"NewDelayingQueueWithConfig(DelayingQueueConfig{Clock: fakeClock})", "newDelaying[any](fakeClock)"},
			{"NewTypedDelayingQueueWithConfig(TypedDelayingQueueConfig[string]{Clock: fakeClock})", "newDelaying[string](fakeClock)"},
		},
	},
	{
		file:   "metrics_test.go",
		remove: []string{"TestMetricShutdown"},
		edits: []edit{
			inside,
			{"newQueueWithConfig[any](config, time.Millisecond)", "newWithMetrics(config)"},
			// The delaying layer's ticker is the first waiter.
			{"for !c.HasWaiters() {", "for c.Waiters() < 2 {"},
			// The period at which unfinished work is measured cannot be set from outside.
			{"c.Step(time.Millisecond)", "c.Step(500 * time.Millisecond)"},
			{"e, a := .001,", "e, a := .5,"},
		},
	},
}

// derive returns the edited file and the names of its tests. Each edit must match something:
// otherwise client-go has changed, and the edits must be adapted.
func (d derivation) derive(t *testing.T, path string) (source []byte, tests []string) {
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range d.edits {
		if !bytes.Contains(source, []byte(e.old)) {
			t.Errorf("%s: nothing to edit: %q", d.file, e.old)
		}
		source = bytes.ReplaceAll(source, []byte(e.old), []byte(e.new))
	}
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, d.file, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	unwanted := map[string]bool{}
	for _, name := range d.remove {
		unwanted[name] = true
	}
	var kept []ast.Decl
	for _, decl := range parsed.Decls {
		f, isFunc := decl.(*ast.FuncDecl)
		if isFunc && f.Recv == nil && unwanted[f.Name.Name] {
			delete(unwanted, f.Name.Name)
			continue
		}
		if isFunc && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
			tests = append(tests, f.Name.Name)
		}
		kept = append(kept, decl)
	}
	if len(unwanted) > 0 {
		t.Errorf("%s: nothing to remove: %v", d.file, unwanted)
	}
	parsed.Decls, parsed.Comments = kept, nil
	var formatted bytes.Buffer
	if err := format.Node(&formatted, files, parsed); err != nil {
		t.Fatal(err)
	}
	return formatted.Bytes(), tests
}

// harness creates the queues for the derived tests: queues of this package, for a member that
// owns everything.
const harness = `package workqueue_test

import (
	"fmt"
	"hash/fnv"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	sharded "github.com/tom-ludwig/operator-scaling/workqueue"
)

type everything struct{}

func (everything) State(uint64) ring.State { return ring.Active }
func (everything) Fenced() bool            { return false }

func newQueue[T comparable](config workqueue.TypedRateLimitingQueueConfig[T]) workqueue.TypedRateLimitingInterface[T] {
	return sharded.New(workqueue.DefaultTypedControllerRateLimiter[T](), sharded.Options[T]{
		Ownership: everything{},
		Point: func(item T) (uint64, error) {
			h := fnv.New64a()
			fmt.Fprint(h, item)
			return h.Sum64(), nil
		},
		Config: config,
	})
}

func newTyped[T comparable]() workqueue.TypedRateLimitingInterface[T] {
	return newQueue(workqueue.TypedRateLimitingQueueConfig[T]{})
}

func newWithConfig(config workqueue.QueueConfig) workqueue.TypedRateLimitingInterface[any] {
	return newQueue(workqueue.TypedRateLimitingQueueConfig[any]{Name: config.Name, Clock: config.Clock, MetricsProvider: config.MetricsProvider})
}

func newWithMetrics(config workqueue.QueueConfig) workqueue.TypedRateLimitingInterface[any] {
	return newWithConfig(config)
}

func newDelaying[T comparable](c clock.WithTicker) workqueue.TypedRateLimitingInterface[T] {
	return newQueue(workqueue.TypedRateLimitingQueueConfig[T]{Clock: c})
}

// waitForWaitingQueueToFill waits until the delaying layer has received all added items.
func waitForWaitingQueueToFill(q workqueue.DelayingInterface) error {
	channel := reflect.ValueOf(q).Elem().FieldByName("timers").Elem().Elem().FieldByName("waitingForAddCh")
	return wait.Poll(time.Millisecond, 10*time.Second, func() (bool, error) { return channel.Len() == 0, nil })
}
`

// run returns the command's output.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, output)
	}
	return string(output)
}

// underRace reports whether this test was built with -race.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, setting := range info.Settings {
		if setting.Key == "-race" {
			return setting.Value == "true"
		}
	}
	return false
}
