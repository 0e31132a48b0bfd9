// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package cachesync

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
)

// maxResponse bounds what is kept of the response to a write: the API server takes no
// larger requests.
const maxResponse = 3 << 20

// observedBody is the body of a response to a write. It keeps what the caller reads,
// to find out which version the object has now. It changes nothing of what the caller
// gets, and when.
type observedBody struct {
	io.ReadCloser
	tracker *WriteTracker
	decode  func([]byte) (metav1.Object, error)

	mu    sync.Mutex   // guards what follows: a body may be closed while it is read
	read  bytes.Buffer // so far
	ended bool
}

// Observe returns the body of a response to a write, from which the tracker learns how far the
// request has written when the caller reads it. It returns the body as it is if there is
// nothing to learn: from errors, from unknown encodings, or if this member has no cache.
func (t *WriteTracker) Observe(response *http.Response) io.ReadCloser {
	if !slices.Contains([]int{http.StatusOK, http.StatusCreated, http.StatusAccepted}, response.StatusCode) ||
		response.Header.Get("Content-Encoding") != "" || len(t.caches.all()) == 0 {
		return response.Body
	}
	o := &observedBody{ReadCloser: response.Body, tracker: t}
	switch mediaType, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";"); strings.TrimSpace(mediaType) {
	case runtime.ContentTypeJSON:
		o.decode = decodeJSON
	case runtime.ContentTypeCBOR:
		o.decode = decodeCBOR
	case runtime.ContentTypeProtobuf:
		o.decode = decodeProtobuf
	default:
		return response.Body
	}
	if n := response.ContentLength; n > 0 && n <= maxResponse {
		o.read.Grow(int(n))
	}
	return o
}

// Read implements io.Reader.
func (o *observedBody) Read(p []byte) (int, error) {
	n, err := o.ReadCloser.Read(p)
	o.keep(p[:n])
	if errors.Is(err, io.EOF) {
		o.end()
	}
	return n, err
}

// Close implements io.Closer.
func (o *observedBody) Close() error {
	o.end() // a decoder may stop at the last byte of an object
	return o.ReadCloser.Close()
}

// keep keeps what the caller has read.
func (o *observedBody) keep(p []byte) {
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
func (o *observedBody) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return
	}
	o.ended = true
	if obj, err := o.decode(o.read.Bytes()); err == nil && obj.GetName() != "" { // a Status has no name, nor has a list
		o.tracker.Note(obj)
	}
	o.read = bytes.Buffer{}
}

func decodeJSON(text []byte) (metav1.Object, error) {
	o := &metav1.PartialObjectMetadata{}
	return o, json.Unmarshal(text, o)
}

func decodeCBOR(text []byte) (metav1.Object, error) {
	o := &unstructured.Unstructured{} // for types, this decoder is strict
	return o, direct.Unmarshal(text, &o.Object)
}

// protobufMagic comes before every object in protobuf.
var protobufMagic = []byte("k8s\x00")

// decodeProtobuf decodes the metadata, which is the first field of every object.
func decodeProtobuf(text []byte) (metav1.Object, error) {
	text, found := bytes.CutPrefix(text, protobufMagic)
	if !found {
		return nil, errors.New("not protobuf")
	}
	var envelope runtime.Unknown
	if err := envelope.Unmarshal(text); err != nil {
		return nil, err
	}
	o := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: envelope.APIVersion, Kind: envelope.Kind}}
	return o, o.Unmarshal(envelope.Raw) // the fields that it does not know are skipped
}
