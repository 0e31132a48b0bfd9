// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestReasonOf(t *testing.T) {
	invented := &apierrors.StatusError{ErrStatus: metav1.Status{Reason: "Invented\xff"}}
	for want, err := range map[string]error{
		"Unauthorized": fmt.Errorf("renew: %w", apierrors.NewUnauthorized("no")),
		"Other":        invented,
		"NoResponse":   fmt.Errorf("renew: %w", context.DeadlineExceeded),
		"Connection":   fmt.Errorf("renew: %w", &net.OpError{Op: "dial", Err: errors.New("refused")}),
	} {
		if got := reasonOf(err); got != want {
			t.Errorf("%v has the reason %s, want %s", err, got, want)
		}
	}
	if got := reasonOf(&apierrors.StatusError{ErrStatus: metav1.Status{Code: 418}}); got != reasonOther {
		t.Errorf("a status without a reason has the reason %s", got)
	}
}

func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f failures
		first, second := errors.New("first"), errors.New("second")
		f.add("get", first, false)
		time.Sleep(time.Second)
		if known := f.add("get", first, false); known.requests != 2 || time.Since(known.since) != time.Second {
			t.Errorf("after two failures: %+v", known)
		}
		time.Sleep(time.Second)
		f.add("list", second, false)
		if err := f.last(); err != second {
			t.Errorf("the last failure is %v", err)
		}
		f.succeeded("list")
		if err := f.last(); err != first {
			t.Errorf("the failure that remains is %v", err)
		}
		time.Sleep(failureAge)
		if err := f.last(); err != nil {
			t.Errorf("a failure that no request confirms still counts: %v", err)
		}
		if known := f.add("get", first, false); known.requests != 1 {
			t.Errorf("a new failure is counted as %d requests", known.requests)
		}
	})
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit throttle
		lines, suppressed := 0, 0
		log := func(text string) {
			if ok, n := limit.allow(text); ok {
				lines++
				suppressed += n
			}
		}
		for range 600 {
			log("same")
			time.Sleep(time.Second)
		}
		if lines != 10 || suppressed != 600-10-59 {
			t.Errorf("%d lines in ten minutes, want 10, and %d suppressed", lines, suppressed)
		}
		lines = 0
		for i := range 600 {
			log(fmt.Sprint(i))
			time.Sleep(time.Second)
		}
		if want := 10 * maxLines; lines > want+maxLines || lines < want {
			t.Errorf("%d lines of different texts in ten minutes, want about %d", lines, want)
		}
		if len(limit.at) > 2*maxLines {
			t.Errorf("it remembers %d texts", len(limit.at))
		}
	})
}
