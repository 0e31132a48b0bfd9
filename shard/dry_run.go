// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// maxOptions bounds what is read of the body of a deletion or an eviction.
const maxOptions = 64 << 10

// eviction matches the paths of evictions.
var eviction = regexp.MustCompile(`(^|/)api/v1/namespaces/[^/]+/pods/[^/]+/eviction$`)

// isDryRun reports whether the API server treats a mutating request as a dry run. The options of
// a deletion are in its body if it has one; the server then ignores those in the query. Those of
// an eviction may be in either. A body that cannot be read twice is left alone, and not a dry run.
func isDryRun(r *http.Request) bool {
	if proxied.MatchString(r.URL.Path) {
		return false // the query and the body are for another server
	}
	inQuery := r.URL.Query().Get("dryRun") == metav1.DryRunAll
	switch {
	case r.Body == nil || r.Body == http.NoBody:
	case r.Method == http.MethodDelete:
		var options metav1.DeleteOptions
		return decodeCopy(r, &options) == nil && slices.Contains(options.DryRun, metav1.DryRunAll)
	case r.Method == http.MethodPost && !inQuery && eviction.MatchString(r.URL.Path):
		var e policyv1.Eviction // v1beta1 has the same form
		return decodeCopy(r, &e) == nil && e.DeleteOptions != nil && slices.Contains(e.DeleteOptions.DryRun, metav1.DryRunAll)
	}
	return inQuery
}

// decodeCopy decodes a copy of a request's body, in JSON or protobuf.
func decodeCopy(r *http.Request, into interface{ Unmarshal([]byte) error }) error {
	if r.GetBody == nil {
		return errors.New("the body can be read only once")
	}
	body, err := r.GetBody()
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	text, err := io.ReadAll(io.LimitReader(body, maxOptions))
	if err != nil {
		return err
	}
	mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch strings.TrimSpace(mediaType) {
	case runtime.ContentTypeJSON:
		return json.Unmarshal(text, into)
	case runtime.ContentTypeProtobuf:
		text, found := bytes.CutPrefix(text, []byte("k8s\x00"))
		if !found {
			return errors.New("not protobuf")
		}
		var envelope runtime.Unknown
		if err := envelope.Unmarshal(text); err != nil {
			return err
		}
		return into.Unmarshal(envelope.Raw)
	}
	return errors.New("unknown encoding")
}
