// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"sync"
	"time"
)

// throttle limits the lines of a log about events of one type: the same text once a minute,
// and maxLines lines a minute in all. Other clients cause these events and choose a part of
// the texts. Any goroutine may call its methods. The zero value has let no line through.
type throttle struct {
	mu         sync.Mutex
	began      time.Time            // of the present minute; guarded by mu
	lines      int                  // in the present minute; guarded by mu
	at         map[string]time.Time // texts of the last minute; guarded by mu
	suppressed int                  // lines since the last one that was let through; guarded by mu
}

const maxLines = 5

// allow reports whether a line may be logged now, and how many were not since the last one.
func (t *throttle) allow(text string) (ok bool, suppressed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.began) >= time.Minute {
		t.began, t.lines = now, 0
		for text, at := range t.at {
			if now.Sub(at) >= time.Minute {
				delete(t.at, text)
			}
		}
	}
	if at, ok := t.at[text]; ok && now.Sub(at) < time.Minute || t.lines >= maxLines {
		t.suppressed++
		return false, 0
	}
	if t.at == nil {
		t.at = map[string]time.Time{}
	}
	suppressed, t.suppressed = t.suppressed, 0
	t.at[text] = now
	t.lines++
	return true, suppressed
}

// short returns a text of at most 200 bytes for a log: other clients may have written it.
func short(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return text[:most] + "..."
}

// few returns at most ten of some names for a log.
func few(names []string) []string {
	const most = 10
	if len(names) <= most {
		return names
	}
	return append(names[:most:most], "...")
}
