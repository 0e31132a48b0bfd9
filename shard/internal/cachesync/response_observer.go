// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package cachesync

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// maxResponse bounds what is kept of the response to a write: the API server takes no
// larger requests.
const maxResponse = 3 << 20

// responseObserver is the body of a response to a write. It keeps what the caller reads,
// to find out which version the object has now. It changes nothing of what the caller
// gets, and when.
type responseObserver struct {
	io.ReadCloser
	tracker *WriteTracker
	parse   func([]byte) (observedWrite, bool)
	created bool

	mu    sync.Mutex   // guards what follows: a body may be closed while it is read
	read  bytes.Buffer // so far
	ended bool
}

// Observe returns the body of a response, from which the tracker learns how far the
// request has written when the caller reads it. It returns the body as it is if there is
// nothing to learn: from errors, from responses to deletions (mostly a Status, or the
// object as it was), from unknown encodings; or if this member has no cache.
func (t *WriteTracker) Observe(r *http.Request, response *http.Response) io.ReadCloser {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		return response.Body
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusCreated ||
		response.Header.Get("Content-Encoding") != "" || len(t.caches.all()) == 0 {
		return response.Body
	}
	o := &responseObserver{ReadCloser: response.Body, tracker: t, created: response.StatusCode == http.StatusCreated}
	switch mediaType, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";"); strings.TrimSpace(mediaType) {
	case runtime.ContentTypeJSON:
		o.parse = parseJSON
	case runtime.ContentTypeProtobuf:
		o.parse = parseProtobuf
	default:
		return response.Body
	}
	if n := response.ContentLength; n > 0 && n <= maxResponse {
		o.read.Grow(int(n))
	}
	return o
}

// Read implements io.Reader.
func (o *responseObserver) Read(p []byte) (int, error) {
	n, err := o.ReadCloser.Read(p)
	o.keep(p[:n])
	if errors.Is(err, io.EOF) {
		o.end()
	}
	return n, err
}

// Close implements io.Closer.
func (o *responseObserver) Close() error {
	o.end() // a decoder may stop at the last byte of an object
	return o.ReadCloser.Close()
}

// keep keeps what the caller has read.
func (o *responseObserver) keep(p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.ended && o.read.Len()+len(p) <= maxResponse {
		o.read.Write(p)
		return
	}
	o.ended, o.read = true, bytes.Buffer{} // too large
}

// end notes the write. It does so before the caller knows that it has read
// everything, and so before the work that the write belongs to can end.
func (o *responseObserver) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return
	}
	o.ended = true
	if w, ok := o.parse(o.read.Bytes()); ok {
		w.created = o.created
		o.tracker.note(w)
	}
	o.read = bytes.Buffer{}
}

// parseJSON reads an object up to its metadata, which the API server sends first.
func parseJSON(text []byte) (w observedWrite, ok bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return w, false
	}
	for haveMeta := false; d.More() && (w.kind == "" || !haveMeta); {
		field, err := d.Token()
		if err != nil {
			return w, false
		}
		switch field {
		case "kind":
			err = d.Decode(&w.kind)
		case "metadata":
			var meta struct{ Namespace, Name, ResourceVersion string }
			err = d.Decode(&meta)
			w.namespace, w.name, w.version, haveMeta = meta.Namespace, meta.Name, meta.ResourceVersion, true
		default:
			var skipped json.RawMessage
			err = d.Decode(&skipped)
		}
		if err != nil {
			return w, false
		}
	}
	return w, w.kind != "" && w.version != ""
}

// protobufMagic comes before every object in protobuf.
var protobufMagic = []byte("k8s\x00")

// parseProtobuf reads the metadata, which is the first field of every object.
func parseProtobuf(text []byte) (w observedWrite, ok bool) {
	text, found := bytes.CutPrefix(text, protobufMagic)
	if !found {
		return w, false
	}
	var envelope runtime.Unknown
	var object metav1.PartialObjectMetadata // the fields that it does not know are skipped
	if envelope.Unmarshal(text) != nil || object.Unmarshal(envelope.Raw) != nil {
		return w, false
	}
	w = observedWrite{kind: envelope.Kind, namespace: object.Namespace, name: object.Name, version: object.ResourceVersion}
	return w, w.kind != "" && w.version != ""
}
