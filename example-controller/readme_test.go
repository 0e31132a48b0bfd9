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

// TestQuickStart compiles the Go code of the README as it stands and runs it: two members in one process, and a server
// that takes 1.5 s for each write. One member gets SIGTERM while the server processes its write. The other member must not
// begin to work on that object before the server is done.
func TestQuickStart(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllSubmatch(readme, -1)
	if len(blocks) != 2 {
		t.Fatalf("the README has %d blocks of Go code, want the quick start and the worker", len(blocks))
	}
	program, err := os.ReadFile("testdata/quickstart.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	for i, marker := range []string{"// QUICK START\n", "// WORKER\n"} {
		if strings.Count(string(program), marker) != 1 {
			t.Fatalf("the program does not contain %q exactly once", marker)
		}
		program = bytes.Replace(program, []byte(marker), blocks[i][1], 1)
	}
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "operator")
	if err := os.WriteFile(source, program, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("the README does not compile: %v\n%s", err, out)
	}

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
