// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package mutation

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BuildTest builds the test binary of the package, or of Tests, with all mutants of the package.
func (p Package) BuildTest(t *testing.T) (binary string) {
	t.Helper()
	overlay, err := WriteOverlay(t.TempDir(), p)
	if err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(t.TempDir(), p.Name+".test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, ".")
	build.Dir = filepath.Join(p.Dir, p.Tests)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s with its mutants: %v\n%s", p.Name, err, out)
	}
	return binary
}

// MustApply fails if an edit does not match the sources. It takes no time: call it in each run of
// the tests, so that a table never becomes out of date.
func (p Package) MustApply(t *testing.T) {
	t.Helper()
	if _, err := WriteOverlay(t.TempDir(), p); err != nil {
		t.Error(err)
	}
}

// MustFail runs a test binary of [Package.BuildTest] with one mutant, and fails if none of its
// tests fails.
func (m Mutant) MustFail(t *testing.T, binary string, args ...string) {
	t.Helper()
	if m.Equivalent != "" {
		t.Skip("no test can detect it: ", m.Equivalent)
	}
	run := exec.CommandContext(t.Context(), binary, args...)
	run.Env = append(os.Environ(), Env+"="+m.Name)
	out, err := run.CombinedOutput()
	switch {
	case err == nil:
		t.Fatalf("no test detected it\n%s", out)
	case !bytes.Contains(out, []byte("--- FAIL: ")): // for example, an invalid flag
		t.Fatalf("%v, but no test failed\n%s", err, out)
	}
	t.Logf("detected: %s", out[:min(len(out), 1000)])
}

// MustPass runs a test binary of [Package.BuildTest] without a mutant. It fails if the
// binary does: then its failures with a mutant prove nothing.
func (p Package) MustPass(t *testing.T, binary string, args ...string) {
	t.Helper()
	run := exec.CommandContext(t.Context(), binary, args...)
	run.Env = append(os.Environ(), Env+"=")
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("without a mutant: %v\n%s", err, out)
	}
}
