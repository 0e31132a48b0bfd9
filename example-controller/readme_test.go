// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// documents are the documents with Go code that a test compiles.
var documents = map[string]bool{"../README.md": true, "../docs/fencing.md": true}

func TestDocumentsCompile(t *testing.T) {
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../docs/decisions/*.md", "*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range found {
			if text, err := os.ReadFile(document); err != nil || goBlock.Match(text) && !documents[document] {
				t.Errorf("%s contains Go code that no test compiles, or cannot be read: %v", document, err)
			}
		}
	}
	buildDocument(t, "../docs/fencing.md", "testdata/fencing.go.txt", "// BLOCK 1\n", "// BLOCK 2\n") // TestQuickStart builds the README's
}

var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// buildDocument replaces the markers in a program by the blocks of Go code in a document, in their order,
// and returns the program, built.
func buildDocument(t *testing.T, document, program string, markers ...string) (binary string) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	blocks := goBlock.FindAllSubmatch(text, -1)
	if len(blocks) != len(markers) {
		t.Fatalf("%s has %d blocks of Go code, want %d", document, len(blocks), len(markers))
	}
	code, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for i, marker := range markers {
		if strings.Count(string(code), marker) != 1 {
			t.Fatalf("%s does not contain %q exactly once", program, marker)
		}
		code = bytes.Replace(code, []byte(marker), blocks[i][1], 1)
	}
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "operator")
	if err := os.WriteFile(source, code, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("%s does not compile: %v\n%s", document, err, out)
	}
	return binary
}

// TestQuickStart compiles the Go code of the README as it stands and runs it: two members in one process, and a server
// that takes 1.5 s for each write. One member gets SIGTERM while the server processes its write. The other member must not
// begin to work on that object before the server is done.
func TestQuickStart(t *testing.T) {
	binary := buildDocument(t, "../README.md", "testdata/quickstart.go.txt", "// QUICK START\n", "// QUEUE\n", "// WORKER\n")
	operator := exec.CommandContext(t.Context(), binary)
	operator.Env = append(os.Environ(), "POD_NAMESPACE=ops", "POD_UID=")
	var output bytes.Buffer
	operator.Stderr = &output
	writing, err := operator.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := operator.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(5*time.Minute, func() { _ = operator.Process.Kill() })
	defer stuck.Stop()
	// Its only line on stdout means that the server is processing a write of the first member.
	if _, err := writing.Read(make([]byte, 1)); err != nil {
		t.Error("no write has begun: ", err)
	}
	if err := operator.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := operator.Wait(); err != nil {
		t.Errorf("%v\n%s", err, output.String())
	}
	t.Log(output.String())
}
