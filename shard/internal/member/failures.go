// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"errors"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
)

// failures knows which requests fail now, and why. Any goroutine may call its methods. The
// zero value knows of none.
type failures struct {
	mu     sync.Mutex
	byVerb map[string]failure // verbs whose last request has failed; guarded by mu
}

// failure is what is known of a verb whose requests fail.
type failure struct {
	err       error // the last one
	since, at time.Time
	denied    time.Time // since when the verb is denied without interruption; zero if it is not
	requests  int
}

// failureAge is how long a failure counts that no later request has confirmed.
const failureAge = time.Minute

// add notes that a request has failed, and returns what is known of its verb now. denied means
// that this process is not authorized to send it.
func (f *failures) add(verb string, err error, denied bool) failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byVerb == nil {
		f.byVerb = map[string]failure{}
	}
	now := time.Now()
	known := f.byVerb[verb]
	if known.requests == 0 || now.Sub(known.at) > failureAge {
		known = failure{since: now}
	}
	known.err, known.at = err, now
	switch {
	case !denied:
		known.denied = time.Time{}
	case known.denied.IsZero():
		known.denied = now
	}
	known.requests++
	f.byVerb[verb] = known
	return known
}

// succeeded notes that a request was carried out, or that its response shows that requests
// of this kind are.
func (f *failures) succeeded(verb string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byVerb, verb)
}

// last returns the error of the request that failed last, nil if none fails now.
func (f *failures) last() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var last failure
	for _, failure := range f.byVerb {
		if failure.at.After(last.at) && time.Since(failure.at) <= failureAge {
			last = failure
		}
	}
	return last.err
}

// expected reports whether an error shows that requests with this verb work: the server has
// decided about the request, as it does when several clients write one Lease; or it asks for
// a new list, or cannot stream lists.
func expected(verb string, err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) ||
		apierrors.IsResourceExpired(err) || apierrors.IsGone(err) ||
		verb == "watch" && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err))
}

// The values of the label "reason" for requests to which no server has responded with an
// error status.
const (
	reasonNoResponse = "NoResponse" // in time
	reasonConnection = "Connection" // for instance refused, or the name was not found
	reasonAltered    = "Altered"    // the server has stored something else
	reasonOther      = "Other"
)

// reasonOf returns why a request failed, from a small set of values: a reason of the
// Kubernetes API, or one of the above.
func reasonOf(err error) string {
	switch reason := apierrors.ReasonForError(err); reason {
	case metav1.StatusReasonUnauthorized, metav1.StatusReasonForbidden, metav1.StatusReasonNotFound, metav1.StatusReasonAlreadyExists,
		metav1.StatusReasonConflict, metav1.StatusReasonGone, metav1.StatusReasonExpired, metav1.StatusReasonInvalid,
		metav1.StatusReasonServerTimeout, metav1.StatusReasonTimeout, metav1.StatusReasonTooManyRequests, metav1.StatusReasonBadRequest,
		metav1.StatusReasonMethodNotAllowed, metav1.StatusReasonNotAcceptable, metav1.StatusReasonRequestEntityTooLarge,
		metav1.StatusReasonUnsupportedMediaType, metav1.StatusReasonInternalError, metav1.StatusReasonServiceUnavailable:
		return string(reason)
	case metav1.StatusReasonUnknown:
	default:
		return reasonOther
	}
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, lease.ErrAltered):
		return reasonAltered
	case errors.As(err, &status):
		return reasonOther
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, lease.ErrNoReturn):
		return reasonNoResponse
	}
	return reasonConnection
}

// rootCause returns the innermost error's text: what stays the same while requests of
// different kinds fail for one reason.
func rootCause(err error) string {
	for {
		switch wrapped := err.(type) {
		case interface{ Unwrap() error }:
			if wrapped.Unwrap() == nil {
				return err.Error()
			}
			err = wrapped.Unwrap()
		case interface{ Unwrap() []error }:
			all := wrapped.Unwrap()
			if len(all) == 0 {
				return err.Error()
			}
			err = all[len(all)-1]
		default:
			return err.Error()
		}
	}
}
