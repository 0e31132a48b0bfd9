// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package cachesync

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// tracking returns a tracker of a member that has an informer for Deployments.
func tracking() *WriteTracker {
	c := &Caches{}
	c.Add(inform(&appsv1.Deployment{}), nil)
	return NewWriteTracker(c)
}

// respond returns the body of the response to a write, as its caller gets it.
func respond(w *WriteTracker, status int, contentType string, body io.Reader) io.ReadCloser {
	return w.Observe(&http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(body)})
}

// deployment is one at version 123 that is encoded in at least so many bytes.
func deployment(size int) *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{Kind: "Deployment", APIVersion: "apps/v1"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "x", Name: "y", ResourceVersion: "123", Generation: 7, Labels: map[string]string{"resourceVersion": "9"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:resourceVersion":{}}}`)}},
		},
		Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: strings.Repeat("x", size)}}}}},
	}
}

func encoded(t testing.TB, contentType string, object runtime.Object) []byte {
	t.Helper()
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), contentType)
	if !ok {
		t.Fatal(contentType)
	}
	var b bytes.Buffer
	if err := scheme.Codecs.EncoderForVersion(info.Serializer, appsv1.SchemeGroupVersion).Encode(object, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWriteTracker_LearnsHowFarAMemberHasWritten(t *testing.T) {
	const j, p = runtime.ContentTypeJSON, runtime.ContentTypeProtobuf
	object := deployment(100)
	inJSON, inProtobuf := encoded(t, j, object), encoded(t, p, object)
	inCBOR, err := direct.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	unordered := []byte(`{"status":{"kind":"x"},"metadata":{"resourceVersion":"123","namespace":"x","name":"y"},"spec":{"metadata":{"resourceVersion":"9"}},"apiVersion":"apps/v1","kind":"Deployment"}`)
	status := []byte(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"Conflict","code":409}`)
	for _, c := range []struct {
		name        string
		status      int
		contentType string
		body        []byte
		want        string
	}{
		{"JSON", 201, j, inJSON, "123"},
		{"JSON with a charset", 201, j + "; charset=utf-8", inJSON, "123"},
		{"protobuf", 201, p, inProtobuf, "123"},
		{"in another order", 201, j, unordered, "123"},
		{"a large object", 201, j, encoded(t, j, deployment(2<<20)), "123"},
		{"a large object in protobuf", 201, p, encoded(t, p, deployment(2<<20)), "123"},
		{"a response that no API server gives", 201, j, encoded(t, j, deployment(maxResponse)), ""},
		{"a deletion that a finalizer holds up", 202, j, inJSON, "123"}, // with the deprecated orphanDependents=false
		{"an error", 409, j, status, ""},
		{"an error that looks like an object", 500, j, inJSON, ""},
		{"a status", 201, j, status, ""},
		{"CBOR", 201, runtime.ContentTypeCBOR, inCBOR, "123"},
		{"a list of objects", 200, j, []byte(`{"kind":"DeploymentList","metadata":{"resourceVersion":"123"}}`), ""},
		{"text", 201, "text/plain", inJSON, ""},
		{"cut off", 201, j, inJSON[:20], ""},
		{"cut off after the metadata", 201, j, inJSON[:len(inJSON)-5], ""}, // for the caller, too, the request has failed
		{"cut off protobuf", 201, p, inProtobuf[:len(inProtobuf)/2], ""},
		{"protobuf without its magic", 201, p, inProtobuf[4:], ""},
		{"nothing", 201, j, nil, ""},
		{"a list", 201, j, []byte(`["kind"]`), ""},
		{"strange types", 201, j, []byte(`{"kind":1,"metadata":"x"}`), ""},
		{"a version that cannot be compared", 201, j, []byte(`{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"x","resourceVersion":"abc"}}`), ""},
		{"a kind without an informer", 201, j, []byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x","resourceVersion":"123"}}`), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := tracking()
			body := respond(w, c.status, c.contentType, iotest.OneByteReader(bytes.NewReader(c.body[:min(len(c.body), 10)])))
			_ = body.Close() // the beginning alone shows nothing
			body = respond(w, c.status, c.contentType, bytes.NewReader(c.body))
			read, err := io.ReadAll(body)
			if err != nil || !bytes.Equal(read, c.body) {
				t.Errorf("the caller read %d bytes of %d: %v", len(read), len(c.body), err)
			}
			want := claim.Watermarks{}
			if c.want != "" {
				want["v1.Deployment"] = c.want
			}
			if diff := cmp.Diff(want, w.Watermarks()); diff != "" { // before the body is closed
				t.Errorf("watermarks (-want +got):\n%s", diff)
			}
			_ = body.Close()
		})
	}
}

func TestWriteTracker_TheHighestWriteCounts(t *testing.T) {
	w := tracking()
	for _, version := range []string{"99", "1000", "101"} {
		text := fmt.Sprintf(`{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"namespace":"x","name":"y","resourceVersion":%q}}`, version)
		body := respond(w, http.StatusCreated, runtime.ContentTypeJSON, strings.NewReader(text))
		// Decoders stop at the last byte of an object and do not see the end.
		if err := json.NewDecoder(body).Decode(&struct{}{}); err != nil {
			t.Fatal(err)
		}
		_ = body.Close()
	}
	if diff := cmp.Diff(claim.Watermarks{"v1.Deployment": "1000"}, w.Watermarks()); diff != "" {
		t.Errorf("watermarks (-want +got):\n%s", diff)
	}
}

// BenchmarkObserve is what it costs to learn the version from a response, against
// reading the response and decoding it as client-go does.
func BenchmarkObserve(b *testing.B) {
	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		for _, size := range []int{1 << 10, 100 << 10} {
			body := encoded(b, contentType, deployment(size))
			decoder := scheme.Codecs.UniversalDeserializer()
			w := tracking()
			for _, observed := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/%dKiB/observed=%v", contentType[len("application/"):], size>>10, observed), func(b *testing.B) {
					status := http.StatusCreated
					if !observed {
						status = http.StatusMultiStatus
					}
					b.ReportAllocs()
					for b.Loop() {
						response := respond(w, status, contentType, bytes.NewReader(body))
						read, err := io.ReadAll(response)
						if err != nil {
							b.Fatal(err)
						}
						if err := response.Close(); err != nil {
							b.Fatal(err)
						}
						if _, _, err := decoder.Decode(read, nil, nil); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			if len(w.kinds) == 0 {
				b.Error("nothing was learned")
			}
		}
	}
}
