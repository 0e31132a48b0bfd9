// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var keep = flag.String("keep", "", "directory to write example pictures to, to be looked at")

func write(t testing.TB, run Run) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, run); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestKeep writes pictures for a person: go test ./timeline -args -keep=/some/directory
func TestKeep(t *testing.T) {
	if *keep == "" {
		t.Skip("-keep is not given")
	}
	for name, run := range map[string]Run{
		"small":  randomRun(1, 64, 4, 8, 3*time.Minute),
		"failed": misdeed(randomRun(2, 100, 8, 14, 5*time.Minute), origin+int64(70*time.Second), 3*time.Second, 40),
		"large":  randomRun(3, 128, 6, 200, 15*time.Minute),
		"many":   randomRun(4, 509, 10, 40, 15*time.Minute),
	} {
		if err := os.WriteFile(filepath.Join(*keep, name+".html"), write(t, run), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
