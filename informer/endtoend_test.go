// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// benchmarked is the number of objects in an end-to-end benchmark. They are updated in chunks,
// because client-go becomes slower for a handler that is more than 1024 events behind.
const benchmarked, chunk = 10_000, 500

// A transport delivers lists and updates of Pods to an informer.
type transport func(b *testing.B, list []*corev1.Pod) (lw cache.ListerWatcher, send func(chunk []*corev1.Pod))

// BenchmarkEndToEnd updates 10,000 objects, alternately through a bare informer and through a
// wrapped one. It reports the medians of their times and of the ratios, with the limits of a 95 %
// confidence interval. "fake" passes pointers, so that only client-go's
// queues and store remain. "http" uses the real client with a server in this process, and
// decodes JSON.
func BenchmarkEndToEnd(b *testing.B) {
	for name, t := range map[string]transport{"fake": fakeWatch, "http": httpWatch} {
		b.Run(name+"/passed", func(b *testing.B) { endToEnd(b, t, ring.Active) })
		b.Run(name+"/filtered", func(b *testing.B) { endToEnd(b, t, ring.NotOwned) })
	}
}

func endToEnd(b *testing.B, t transport, state ring.State) {
	o := &snapshotOwner{}
	o.all(state)
	rounds := [2][]*corev1.Pod{pods(benchmarked, 0), pods(benchmarked, 1)}
	start := func(wrap bool) func(round []*corev1.Pod) [2]time.Duration {
		lw, send := t(b, rounds[0])
		bare, wrapped := bareAndWrapped(o, lw)
		informer := bare
		if wrap {
			informer = wrapped
		}
		done := newCountingHandler(benchmarked)
		if wrap && state != ring.Active {
			wrapped.ownership = countingOwner{o, done} // because the handler is not called
		}
		if _, err := informer.AddEventHandler(&namer{countingHandler: done}); err != nil {
			b.Fatal(err)
		}
		running(b, informer)
		<-done.reached
		if wrap {
			activated(b, wrapped, o)
		}
		return func(round []*corev1.Pod) [2]time.Duration {
			began, used := time.Now(), cpuTime()
			for some := range slices.Chunk(round, chunk) {
				done.goal.Add(chunk)
				send(some)
				<-done.reached
			}
			return [2]time.Duration{time.Since(began), cpuTime() - used}
		}
	}
	bare, wrapped := start(false), start(true)
	var times [2][][2]time.Duration
	i := 0
	for b.Loop() {
		i++
		if i/2%2 == 0 { // alternate which of them runs first
			times[0] = append(times[0], bare(rounds[i%2]))
			times[1] = append(times[1], wrapped(rounds[i%2]))
		} else {
			times[1] = append(times[1], wrapped(rounds[i%2]))
			times[0] = append(times[0], bare(rounds[i%2]))
		}
	}
	b.ReportMetric(0, "ns/op") // the sum of both: not meaningful
	for kind, unit := range []string{"", "cpu-"} {
		var medians [2]float64
		ratios := make([]float64, len(times[0]))
		for which, of := range times {
			values := make([]float64, len(of))
			for at := range of {
				values[at] = float64(of[at][kind]) / benchmarked
				ratios[at] = float64(times[1][at][kind]) / float64(times[0][at][kind])
			}
			slices.Sort(values)
			medians[which] = values[len(values)/2]
		}
		slices.Sort(ratios)
		low, high := interval(ratios)
		b.ReportMetric(medians[0], "bare-"+unit+"ns/event")
		b.ReportMetric(medians[1], "wrapped-"+unit+"ns/event")
		b.ReportMetric(ratios[len(ratios)/2], unit+"ratio")
		b.ReportMetric(low, unit+"ratio-low")
		b.ReportMetric(high, unit+"ratio-high")
	}
}

// interval returns the limits of a 95 % confidence interval of the median of sorted values.
func interval(x []float64) (low, high float64) {
	n := float64(len(x))
	half := 0.98 * math.Sqrt(n)
	return x[max(0, int(n/2-half))], x[min(len(x)-1, int(n/2+half))]
}

// countingOwner counts the calls of State: one for each event that is filtered.
type countingOwner struct {
	*snapshotOwner
	*countingHandler
}

func (c countingOwner) State(point uint64) ring.State {
	c.count()
	return c.snapshotOwner.State(point)
}

func fakeWatch(_ *testing.B, list []*corev1.Pod) (cache.ListerWatcher, func([]*corev1.Pod)) {
	watcher := watch.NewFakeWithChanSize(chunk, false)
	return listed(list, watcher), func(chunk []*corev1.Pod) {
		for _, pod := range chunk {
			watcher.Modify(pod)
		}
	}
}

func httpWatch(b *testing.B, objects []*corev1.Pod) (cache.ListerWatcher, func([]*corev1.Pod)) {
	encoded := map[*corev1.Pod][]byte{} // by the first Pod of each chunk; encoded once
	chunks, ended := make(chan []byte), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") == "" {
			list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
			for _, pod := range objects {
				list.Items = append(list.Items, *pod)
			}
			_ = json.NewEncoder(w).Encode(list)
			return
		}
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for {
			select {
			case some := <-chunks:
				_, _ = w.Write(some)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			case <-ended:
				return
			}
		}
	}))
	b.Cleanup(func() { close(ended); server.Close() })
	client := kubernetes.NewForConfigOrDie(&rest.Config{Host: server.URL, QPS: -1})
	lw := unstreamed{cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", "", fields.Everything())}
	return lw, func(chunk []*corev1.Pod) {
		if encoded[chunk[0]] == nil {
			var buffer bytes.Buffer
			for _, pod := range chunk {
				pod = pod.DeepCopy()
				pod.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
				_ = json.NewEncoder(&buffer).Encode(map[string]any{"type": watch.Modified, "object": pod})
			}
			encoded[chunk[0]] = buffer.Bytes()
		}
		chunks <- encoded[chunk[0]]
	}
}

// listed returns a ListerWatcher that lists the objects and watches what the test sends.
func listed(objects []*corev1.Pod, watcher watch.Interface) cache.ListerWatcher {
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	for _, pod := range objects {
		list.Items = append(list.Items, *pod)
	}
	return unstreamed{&cache.ListWatch{
		ListWithContextFunc:  func(context.Context, metav1.ListOptions) (runtime.Object, error) { return list, nil },
		WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) { return watcher, nil },
	}}
}

// activated replays everything that is active, as package shard does at the start, until the benchmark ends.
func activated(b *testing.B, informer *Informer, o *snapshotOwner) {
	set := ring.NewSet(ring.DefaultPartitions)
	for p, state := range o.states.Load() {
		if state == ring.Active {
			set.Add(p)
		}
	}
	informer.Activated(set)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- informer.Replay(ctx) }()
	b.Cleanup(func() { cancel(); <-ended })
	for _, f := range informer.filters {
		<-f.replayed
	}
}

// running runs the informer until the benchmark ends.
func running(b *testing.B, informer cache.SharedIndexInformer) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { informer.RunWithContext(ctx); close(ended) }()
	b.Cleanup(func() { cancel(); <-ended })
}

// unstreamed does not support watch lists.
type unstreamed struct{ *cache.ListWatch }

func (unstreamed) IsWatchListSemanticsUnSupported() bool { return true }
