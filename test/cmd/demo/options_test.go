// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	o, err := parse([]string{"-pause=3s"}, io.Discard)
	if err != nil || o.lease != 15*time.Second || o.pause != 3*time.Second || o.objects != 300 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{
		{"-objects=0"}, {"-lease-duration=1500ms"}, {"-kubeconfig=/does/not/exist"}, {"word"}, {"-pause=-1s"}, {"-changes=-1"}, {"-unknown"},
	} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}
