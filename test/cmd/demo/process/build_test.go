// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestMessagesSeparateProgressFromErrors(t *testing.T) {
	var shown []string
	m := &messages{progress: func(status string) { shown = append(shown, status) }}
	fmt.Fprint(m, "go: downloading k8s.io/api v0.37.2\nk8s.io/api/core/v1\nk8s.io/cli")
	fmt.Fprint(m, "ent-go/rest\n# example\n./main.go:3:1: syntax error\nno end")
	want := "modules downloaded: 0, now k8s.io/api v0.37.2|packages compiled: 1|packages compiled: 2"
	if got := strings.Join(shown, "|"); got != want {
		t.Errorf("progress %q, want %q", got, want)
	}
	if got, want := fmt.Sprint(m.errors()), "# example\n./main.go:3:1: syntax error\nno end"; got != want {
		t.Errorf("errors %q, want %q", got, want)
	}
}

func TestExplain(t *testing.T) {
	full := errors.New("write /root/.cache/x: no space left on device")
	if got := Explain(full); !errors.Is(got, full) || !strings.Contains(got.Error(), "GB") {
		t.Errorf("%v", got)
	}
	other := errors.New("syntax error")
	if got := Explain(other); got != other {
		t.Errorf("%v", got)
	}
}
