// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// maxAnswer bounds what is kept of the answer to a write: the API server takes no
// larger requests.
const maxAnswer = 3 << 20

// witness keeps what the caller reads of the answer to a write, to find out which
// version the object has now. It changes nothing of what the caller gets, and when.
type responseObserver struct {
	s       *Sharder
	parse   func([]byte) (observedWrite, bool)
	created bool

	mu    sync.Mutex   // guards what follows: a body may be closed while it is read
	read  bytes.Buffer // so far
	ended bool
}

// newWitness returns nil if the answer can't tell anything: errors, the answers to
// deletions (mostly a Status, or the object as it was), unknown encodings; or if
// this member has no cache.
func newResponseObserver(s *Sharder, r *http.Request, response *http.Response) *responseObserver {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		return nil
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusCreated ||
		response.Header.Get("Content-Encoding") != "" || len(s.caches()) == 0 {
		return nil
	}
	w := &responseObserver{s: s, created: response.StatusCode == http.StatusCreated}
	switch mediaType, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";"); strings.TrimSpace(mediaType) {
	case runtime.ContentTypeJSON:
		w.parse = parseJSON
	case runtime.ContentTypeProtobuf:
		w.parse = parseProtobuf
	default:
		return nil
	}
	if n := response.ContentLength; n > 0 && n <= maxAnswer {
		w.read.Grow(int(n))
	}
	return w
}

// take keeps what the caller has read.
func (w *responseObserver) take(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended && w.read.Len()+len(p) <= maxAnswer {
		w.read.Write(p)
		return
	}
	w.ended, w.read = true, bytes.Buffer{} // too large
}

// end notes the write. It does so before the caller knows that it has read
// everything, and so before the work that the write belongs to can end.
func (w *responseObserver) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	if a, ok := w.parse(w.read.Bytes()); ok {
		a.created = w.created
		w.s.wrote(a)
	}
	w.read = bytes.Buffer{}
}

// parseJSON reads an object up to its metadata, which the API server sends first.
func parseJSON(text []byte) (a observedWrite, ok bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return a, false
	}
	for haveMeta := false; d.More() && (a.kind == "" || !haveMeta); {
		field, err := d.Token()
		if err != nil {
			return a, false
		}
		switch field {
		case "kind":
			err = d.Decode(&a.kind)
		case "metadata":
			var meta struct{ Namespace, Name, ResourceVersion string }
			err = d.Decode(&meta)
			a.namespace, a.name, a.version, haveMeta = meta.Namespace, meta.Name, meta.ResourceVersion, true
		default:
			var skipped json.RawMessage
			err = d.Decode(&skipped)
		}
		if err != nil {
			return a, false
		}
	}
	return a, a.kind != "" && a.version != ""
}

// protobufMagic comes before every object in protobuf.
var protobufMagic = []byte("k8s\x00")

// parseProtobuf reads the metadata, which is the first field of every object.
func parseProtobuf(text []byte) (a observedWrite, ok bool) {
	text, found := bytes.CutPrefix(text, protobufMagic)
	if !found {
		return a, false
	}
	var envelope runtime.Unknown
	var object metav1.PartialObjectMetadata // the fields that it doesn't know are skipped
	if envelope.Unmarshal(text) != nil || object.Unmarshal(envelope.Raw) != nil {
		return a, false
	}
	a = observedWrite{kind: envelope.Kind, namespace: object.Namespace, name: object.Name, version: object.ResourceVersion}
	return a, a.kind != "" && a.version != ""
}
