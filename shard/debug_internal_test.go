// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"testing"
	"testing/synctest"
	"time"
)

// A page that takes long to create is shown for longer, so that readers cannot keep a processor
// busy with pages that no reader has asked for twice.
func TestStatusPage_OneThatTakesLongIsShownForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for took, shown := range map[time.Duration]time.Duration{
			time.Millisecond:       pageAge, // since it was begun
			800 * time.Millisecond: 8 * time.Second,
			3 * time.Second:        30 * time.Second,
		} {
			began := time.Now()
			p := statusPages{until: began.Add(pageAge)}
			time.Sleep(took)
			p.created(began)
			want := began.Add(pageAge)
			if shown > pageAge {
				want = time.Now().Add(shown)
			}
			if !p.until.Equal(want) {
				t.Errorf("a page that took %v is shown for %v, want %v", took, p.until.Sub(began), want.Sub(began))
			}
		}
	})
}
