// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// raceFlag is set if this test runs with the race detector; the tests that it runs then use it too.
var raceFlag []string

// TestUpstreamSharedInformer runs client-go's own tests for shared informers on an
// Informer whose member owns everything (guarantee I7).
//
// The tests are read from the module cache and changed in a few places (see edit): they create
// their informers with another function, and read unexported fields by reflection. The go
// command gets them as an overlay, so that nothing is written into this tree.
func TestUpstreamSharedInformer(t *testing.T) {
	root, clientGo := goList(t, "-m"), goList(t, "-m", "k8s.io/client-go")
	read := func(name string) string {
		content, err := os.ReadFile(filepath.Join(clientGo, "tools", "cache", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}

	tests := read("shared_informer_test.go")
	overlay := map[string]string{}
	add := func(name, path string) { overlay[filepath.Join(root, "informer", "upstream", name)] = path }
	add("shared_informer_test.go", write("shared_informer_test.go", edit(t, tests)))
	add("util_test.go", write("util_test.go", replace(t, packageOf(t, read("util_test.go")),
		`(?s)func newFakeControllerSource.*?\n}\n`, "", `(?m)^.*fcache "k8s.io/client-go/tools/cache/testing"\n`, "", `(?m)^\t"testing"\n`, "")))
	add("main_test.go", write("main_test.go", packageOf(t, read("main_test.go"))))
	add("inside_test.go", filepath.Join(root, "informer", "testdata", "upstream", "inside_test.go"))
	encoded, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	// Upstream's tests need modules that ours do not need, so they have their own go.mod.
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		write(name, string(content))
	}
	binary := filepath.Join(dir, "upstream.test")
	run(t, root, "go", append(append([]string{
		"test", "-c", "-o", binary, "-vet=off", "-mod=mod", "-modfile=" + filepath.Join(dir, "go.mod"),
		"-overlay=" + write("overlay.json", string(encoded)),
	}, raceFlag...), "./informer/upstream")...)
	output := runUpstream(t, dir, binary)

	found := regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(tests, -1)
	if len(found) < 20 {
		t.Errorf("found only %d tests in client-go: has it been reorganized?", len(found))
	}
	for _, test := range found {
		if !strings.Contains(output, "--- PASS: "+test[1]+" ") {
			t.Errorf("%s did not pass", test[1])
		}
	}
	t.Logf("%d of client-go's tests passed, of %d", strings.Count("\n"+output, "\n--- PASS: "), len(found))
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

// edit changes client-go's tests so that they test an Informer from outside package cache.
func edit(t *testing.T, tests string) string {
	return replace(
		t, packageOf(t, tests),
		`(?m)^import \(\n`, "import (\n\t. \"k8s.io/client-go/tools/cache\"\n",
		// How informers are created.
		`NewSharedInformer\(`, `newSharded(`,
		`(newSharded\(.*\))\.\(\*sharedIndexInformer\)`, `$1`,
		// Helpers that use unexported fields; testdata has replacements of the same names.
		`(?s)func (eventHandlerCount|isStarted|isRegistered)\(.*?\n}\n`, ``,
		`informer\.processor\.getListener`, `getListener`,
		`informer\.resyncCheckPeriod`, `resyncCheckPeriod(informer)`,
		`informer\.clock = clock\n\tinformer\.processor\.clock = clock`, `setClock(informer, clock)`,
	)
}

func packageOf(t *testing.T, file string) string {
	return replace(t, file, `(?m)^package cache$`, "package upstream")
}

// replace replaces each pattern. It fails the test if a pattern matches nothing.
func replace(t *testing.T, text string, patternsAndReplacements ...string) string {
	t.Helper()
	for pair := range slices.Chunk(patternsAndReplacements, 2) {
		pattern := regexp.MustCompile(pair[0])
		if !pattern.MatchString(text) {
			t.Fatalf("client-go's tests have changed: nothing matches %s", pair[0])
		}
		text = pattern.ReplaceAllString(text, pair[1])
	}
	return text
}

// run returns the command's output. If the command fails, it fails the test with the output.
func run(t *testing.T, dir, name string, arguments ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, arguments...)
	command.Dir = dir
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, output)
	}
	return string(output)
}

func goList(t *testing.T, arguments ...string) string {
	t.Helper()
	return strings.TrimSpace(run(t, ".", "go", append([]string{"list", "-f", "{{.Dir}}"}, arguments...)...))
}
