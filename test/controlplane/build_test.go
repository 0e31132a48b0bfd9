// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBuildLog(t *testing.T) {
	var l buildLog
	for _, step := range []struct{ output, stage string }{
		{"", "checking for changes"},
		{"go: downloading k8s.io/api v0.37.2\ngo: downloading k8s.io/x", "downloaded 2 modules"},
		{" v0\nk8s.io/api/core/v1\n", "compiled 1 of at most 7 packages"},
		{"fmt\n# k8s.io/broken\na.go:1:1: syntax error\n", "compiled 2 of at most 7 packages"},
	} {
		if _, err := l.Write([]byte(step.output)); err != nil {
			t.Fatal(err)
		}
		if got := l.stage(7); !strings.HasPrefix(got, step.stage) {
			t.Errorf("after %q the stage is %q, want %q", step.output, got, step.stage)
		}
	}
}

func TestBuildEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the error of the context", err)
	}
}

func TestLockIsHeldByOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	locked, err := lock(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("taken twice: %v", err)
	}
	_ = locked.Close()
	locked, err = lock(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_ = locked.Close()
}
