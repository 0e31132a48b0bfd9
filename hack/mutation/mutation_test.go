// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package mutation_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tom-ludwig/operator-scaling/hack/mutation"
)

const greeter = `package main

import (
	"fmt"

	"greeter/internal/voice"
)

func main() { fmt.Println(voice.Say(greeting())) }

func greeting() string {
	return "hello"
}
`

const voice = `package voice

func Say(text string) string { return text }
`

func module(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module greeter\n\ngo 1.26\n", "main.go": greeter, "internal/voice/main.go": voice} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOneBuildServesAllMutants(t *testing.T) {
	dir := module(t)
	overlay, err := mutation.WriteOverlay(t.TempDir(), mutation.Package{
		Dir: dir, Name: "main", Extra: `func silence() string { return "silence" }`,
		Mutants: []mutation.Mutant{
			{Name: "is rude", Edits: []mutation.Edit{{File: "main.go", Old: "\treturn \"hello\"", New: "\tif MUTANT_ON {\n\t\treturn \"go away\"\n\t}\n\treturn \"hello\""}}},
			{Name: "is silent", Edits: []mutation.Edit{{File: "main.go", Old: "fmt.Println(voice.Say(greeting()))", New: "if MUTANT_ON { fmt.Println(silence()) } else { fmt.Println(voice.Say(greeting())) }"}}},
			{Name: "shouts", Edits: []mutation.Edit{{File: "internal/voice/main.go", Old: "return text", New: "if MUTANT_ON {\n\t\treturn text + \"!\"\n\t}\n\treturn text"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "greeter")
	build := exec.Command("go", "build", "-buildvcs=false", "-overlay", overlay, "-o", binary, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for mutant, want := range map[string]string{"": "hello", "is rude": "go away", "is silent": "silence", "shouts": "hello!", "unknown": "hello"} {
		run := exec.Command(binary)
		run.Env = append(os.Environ(), mutation.Env+"="+mutant)
		out, err := run.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(out)); got != want {
			t.Errorf("mutant %q: got %q, want %q", mutant, got, want)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "main.go")); err != nil || string(text) != greeter {
		t.Error("the source was changed")
	}
}

func TestInvalidEditsAreRejected(t *testing.T) {
	dir := module(t)
	edit := func(old, replacement string) mutation.Mutant {
		return mutation.Mutant{Name: "m", Edits: []mutation.Edit{{File: "main.go", Old: old, New: replacement}}}
	}
	for _, test := range []struct {
		what    string
		mutants []mutation.Mutant
		want    string
	}{
		{"a text that is missing", []mutation.Mutant{edit("goodbye", "MUTANT_ON")}, "0 times"},
		{"a text that occurs twice", []mutation.Mutant{edit("greeting", "MUTANT_ON")}, "2 times"},
		{"a mutant that is always on", []mutation.Mutant{edit("hello", "goodbye")}, "MUTANT_ON"},
		{"two edits of one place", []mutation.Mutant{edit(`"hello"`, "MUTANT_ON"), edit(`return "hello"`, "MUTANT_ON")}, "0 times"},
	} {
		_, err := mutation.WriteOverlay(t.TempDir(), mutation.Package{Dir: dir, Name: "main", Mutants: test.mutants})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error that contains %q", test.what, err, test.want)
		}
	}
}
