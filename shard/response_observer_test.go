// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// writing returns a member that has an informer for Deployments and owns
// everything, without Run, and the context of a piece of its work.
func writing(t testing.TB) (*Sharder, context.Context) {
	t.Helper()
	s, err := New(fake.NewClientset(), Config{Name: "foo", PodName: "a", Namespace: "b"})
	if err != nil {
		t.Fatal(err)
	}
	p := s.cfg.parameters()
	all := emptySnapshot(p)
	for i := range all.states {
		all.states[i] = ring.Active
	}
	s.snapshot.Store(all)
	s.deadline.Store(&claim.Time{Mono: math.MaxInt64, Wall: math.MaxInt64})
	NewInformer(s, &cache.ListWatch{}, &appsv1.Deployment{}, 0, nil)
	q := NewQueue(s, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	t.Cleanup(q.ShutDown)
	item := cache.ObjectName{Namespace: "x", Name: "y"}
	q.Add(item)
	got, _ := q.Get()
	return s, q.Context(context.Background(), got)
}

// roundTripper answers in the same way each time.
type roundTripper func(*http.Request) *http.Response

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

func answering(status int, contentType string, body io.Reader) roundTripper {
	return func(*http.Request) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(body)}
	}
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

func send(t testing.TB, ctx context.Context, method string, server http.RoundTripper) io.ReadCloser {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := WrapTransport(server).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return response.Body
}

func TestWrapTransport_LearnsHowFarAMemberHasWritten(t *testing.T) {
	const j, p = runtime.ContentTypeJSON, runtime.ContentTypeProtobuf
	object := deployment(100)
	inJSON, inProtobuf := encoded(t, j, object), encoded(t, p, object)
	unordered := []byte(`{"status":{"kind":"x"},"metadata":{"resourceVersion":"123","namespace":"x","name":"y"},"spec":{"metadata":{"resourceVersion":"9"}},"kind":"Deployment"}`)
	status := []byte(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"Conflict","code":409}`)
	for _, c := range []struct {
		name, method string
		status       int
		contentType  string
		body         []byte
		want         string
	}{
		{"JSON", http.MethodPost, 201, j, inJSON, "123"},
		{"JSON with a charset", http.MethodPost, 201, j + "; charset=utf-8", inJSON, "123"},
		{"protobuf", http.MethodPost, 201, p, inProtobuf, "123"},
		{"in another order", http.MethodPost, 201, j, unordered, "123"},
		{"a large object", http.MethodPost, 201, j, encoded(t, j, deployment(2<<20)), "123"},
		{"a large object in protobuf", http.MethodPost, 201, p, encoded(t, p, deployment(2<<20)), "123"},
		{"an answer that no API server gives", http.MethodPost, 201, j, encoded(t, j, deployment(maxAnswer)), ""},
		{"an error", http.MethodPut, 409, j, status, ""},
		{"an error that looks like an object", http.MethodPut, 500, j, inJSON, ""},
		{"a status", http.MethodPost, 201, j, status, ""},
		{"a deletion", http.MethodDelete, 200, j, inJSON, ""},
		{"a read", http.MethodGet, 200, j, inJSON, ""},
		{"text", http.MethodPost, 201, "text/plain", inJSON, ""},
		{"cut off", http.MethodPost, 201, j, inJSON[:20], ""},
		{"cut off after the metadata", http.MethodPost, 201, j, inJSON[:len(inJSON)-5], "123"},
		{"cut off protobuf", http.MethodPost, 201, p, inProtobuf[:len(inProtobuf)/2], ""},
		{"protobuf without its magic", http.MethodPost, 201, p, inProtobuf[4:], ""},
		{"nothing", http.MethodPost, 201, j, nil, ""},
		{"a list", http.MethodPost, 201, j, []byte(`["kind"]`), ""},
		{"strange types", http.MethodPost, 201, j, []byte(`{"kind":1,"metadata":"x"}`), ""},
		{"a version that can't be compared", http.MethodPost, 201, j, []byte(`{"kind":"Deployment","metadata":{"resourceVersion":"abc"}}`), ""},
		{"a kind without an informer", http.MethodPost, 201, j, []byte(`{"kind":"Pod","metadata":{"resourceVersion":"123"}}`), ""},
		{"what the informer does not hold", http.MethodPatch, 200, j, inJSON, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, ctx := writing(t)
			body := send(t, ctx, c.method, answering(c.status, c.contentType, iotest.OneByteReader(bytes.NewReader(c.body[:min(len(c.body), 10)]))))
			_ = body.Close() // the beginning alone tells nothing
			body = send(t, ctx, c.method, answering(c.status, c.contentType, bytes.NewReader(c.body)))
			read, err := io.ReadAll(body)
			if err != nil || !bytes.Equal(read, c.body) {
				t.Errorf("the caller read %d bytes of %d: %v", len(read), len(c.body), err)
			}
			want := claim.Watermarks{}
			if c.want != "" {
				want["Deployment"] = c.want
			}
			if diff := cmp.Diff(want, s.watermarks()); diff != "" { // before the body is closed
				t.Errorf("marks (-want +got):\n%s", diff)
			}
			_ = body.Close()
		})
	}
}

func TestWrapTransport_TheHighestWriteCounts(t *testing.T) {
	s, ctx := writing(t)
	for _, version := range []string{"99", "1000", "101"} {
		text := fmt.Sprintf(`{"kind":"Deployment","metadata":{"namespace":"x","name":"y","resourceVersion":%q}}`, version)
		body := send(t, ctx, http.MethodPost, answering(http.StatusCreated, runtime.ContentTypeJSON, strings.NewReader(text)))
		// Decoders stop at the last byte of an object and do not see the end.
		if err := json.NewDecoder(body).Decode(&struct{}{}); err != nil {
			t.Fatal(err)
		}
		_ = body.Close()
	}
	if diff := cmp.Diff(claim.Watermarks{"Deployment": "1000"}, s.watermarks()); diff != "" {
		t.Errorf("marks (-want +got):\n%s", diff)
	}
}

// Writes of nobody's work tell nothing.
func TestWrapTransport_OnlyWorkCounts(t *testing.T) {
	s, _ := writing(t)
	body := send(t, context.Background(), http.MethodPost, answering(http.StatusCreated, runtime.ContentTypeJSON, bytes.NewReader(encoded(t, runtime.ContentTypeJSON, deployment(0)))))
	if _, err := io.ReadAll(body); err != nil {
		t.Fatal(err)
	}
	if marks := s.watermarks(); len(marks) > 0 {
		t.Errorf("marks %v", marks)
	}
}

// An answer that comes piece by piece is passed on piece by piece.
func TestWrapTransport_HoldsNothingBack(t *testing.T) {
	_, ctx := writing(t)
	server, pipe := io.Pipe()
	body := send(t, ctx, http.MethodPost, answering(http.StatusOK, runtime.ContentTypeJSON, server))
	for _, piece := range []string{`{"kind":`, `"Deployment"`, `}`} {
		go func() { _, _ = pipe.Write([]byte(piece)) }()
		read := make([]byte, 100)
		n, err := body.Read(read)
		if err != nil || string(read[:n]) != piece {
			t.Fatalf("read %q, %v instead of %q", read[:n], err, piece)
		}
	}
	_ = pipe.CloseWithError(io.ErrUnexpectedEOF)
	if n, err := body.Read(make([]byte, 1)); n != 0 || err != io.ErrUnexpectedEOF { //nolint:errorlint // passed on as it is
		t.Errorf("read %d, %v", n, err)
	}
	_ = body.Close()
}

func TestKindOf(t *testing.T) {
	custom := &unstructured.Unstructured{}
	custom.SetKind("Foo")
	for _, c := range []struct {
		object any
		want   string
	}{
		{&appsv1.Deployment{}, "Deployment"},
		{custom, "Foo"},
		{&unstructured.Unstructured{}, ""},
		{&metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: "Pod"}}, "Pod"},
		{&metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata"}}, ""},
		{nil, ""},
	} {
		if got := kindOf(c.object); got != c.want {
			t.Errorf("%T: %q, want %q", c.object, got, c.want)
		}
	}
}

// Where there is nothing to compare, nobody waits.
func TestReached(t *testing.T) {
	s, _ := writing(t)
	deployments := s.caches()[0]
	check := func(version string, want bool) {
		t.Helper()
		if got := len(s.reached(claim.Watermarks{"Deployment": version})) == 1; got != want {
			t.Errorf("version %s is reached: %v", version, got)
		}
	}
	check("1", false) // has not synced
	if got := s.reached(claim.Watermarks{"Pod": "5"}); len(got) != 1 {
		t.Error("waits for a kind that there is no informer of")
	}
	deployments.Informer.SharedIndexInformer = synced{deployments.SharedIndexInformer}
	check("1", true) // can't be compared: the store knows no version
	deployments.GetStore().Bookmark("100")
	check("99", true)
	check("100", true)
	check("101", false)
	check("abc", true)
	deployments.GetStore().Bookmark("x")
	check("101", true)
}

type synced struct{ cache.SharedIndexInformer }

func (synced) HasSynced() bool { return true }

// BenchmarkWitness is what it costs to learn the version from an answer, against
// reading the answer and decoding it as client-go does.
func BenchmarkWitness(b *testing.B) {
	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		for _, size := range []int{1 << 10, 100 << 10} {
			body := encoded(b, contentType, deployment(size))
			decoder := scheme.Codecs.UniversalDeserializer()
			s, ctx := writing(b)
			for _, watched := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/%dKiB/watched=%v", contentType[len("application/"):], size>>10, watched), func(b *testing.B) {
					method := http.MethodPost
					if !watched {
						method = http.MethodDelete // goes the same way without a witness
					}
					b.ReportAllocs()
					for b.Loop() {
						answer := send(b, ctx, method, answering(http.StatusCreated, contentType, bytes.NewReader(body)))
						read, err := io.ReadAll(answer)
						if err != nil {
							b.Fatal(err)
						}
						if err := answer.Close(); err != nil {
							b.Fatal(err)
						}
						if _, _, err := decoder.Decode(read, nil, nil); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			if len(s.writes.fresh()) == 0 {
				b.Error("nothing was learnt")
			}
		}
	}
}
