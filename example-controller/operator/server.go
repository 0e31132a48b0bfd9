// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
)

// newMux serves the metrics of the registry, the probes and the status page.
func newMux(s *shard.Sharder, registry *prometheus.Registry) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /healthz", s.HealthHandler())
	mux.Handle("GET /readyz", s.ReadyHandler())
	mux.Handle("GET /debug/shard", s.DebugHandler())
	return mux
}

// server is an HTTP server that already listens on its address, so that an address that is in use is detected before
// anything else starts.
type server struct {
	listener net.Listener
	http     http.Server
	ended    chan struct{}
}

func listen(address string, handler http.Handler) (*server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--http-address: %w", err)
	}
	return &server{
		listener: listener,
		http: http.Server{
			Handler: handler,
			// Clients that stay connected without a request, or read slowly, must not use up the files of this process.
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		},
		ended: make(chan struct{}),
	}, nil
}

// run serves until shutdown. It calls failed if the server ends earlier.
func (s *server) run(failed func(error)) {
	defer close(s.ended)
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		failed(fmt.Errorf("serve HTTP on %s: %w", s.listener.Addr(), err))
	}
}

// shutdown gives requests in flight one second to end, and returns after run has returned.
func (s *server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // nothing else can be done
	}
	<-s.ended
}

// newRegistry holds the metrics of the ring, of the queue, and of the process.
func newRegistry(s *shard.Sharder, queues *queueMetrics) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		s.Collector(),
		queues,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

// queueMetrics provides the queue metrics that every Kubernetes component has.
type queueMetrics struct {
	depth, unfinished, longest *prometheus.GaugeVec
	adds, retries              *prometheus.CounterVec
	latency, duration          *prometheus.HistogramVec
}

var (
	_ workqueue.MetricsProvider = (*queueMetrics)(nil)
	_ prometheus.Collector      = (*queueMetrics)(nil)
)

func newQueueMetrics() *queueMetrics {
	label := []string{"name"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: "workqueue", Name: name, Help: help}, label)
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: "workqueue", Name: name, Help: help}, label)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Subsystem: "workqueue", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(1e-6, 10, 10),
		}, label)
	}
	return &queueMetrics{
		depth:      gauge("depth", "Number of items that wait in the queue."),
		unfinished: gauge("unfinished_work_seconds", "Seconds of work in progress, summed over all items in flight."),
		longest:    gauge("longest_running_processor_seconds", "Seconds that the longest running worker has been processing its item."),
		adds:       counter("adds_total", "Number of items added to the queue."),
		retries:    counter("retries_total", "Number of items added again after a delay."),
		latency:    histogram("queue_duration_seconds", "Seconds that items waited in the queue."),
		duration:   histogram("work_duration_seconds", "Seconds that processing an item took."),
	}
}

func (m *queueMetrics) each(f func(prometheus.Collector)) {
	for _, c := range []prometheus.Collector{m.depth, m.unfinished, m.longest, m.adds, m.retries, m.latency, m.duration} {
		f(c)
	}
}

// Describe implements prometheus.Collector.
func (m *queueMetrics) Describe(ch chan<- *prometheus.Desc) {
	m.each(func(c prometheus.Collector) { c.Describe(ch) })
}

// Collect implements prometheus.Collector.
func (m *queueMetrics) Collect(ch chan<- prometheus.Metric) {
	m.each(func(c prometheus.Collector) { c.Collect(ch) })
}

func (m *queueMetrics) NewDepthMetric(name string) workqueue.GaugeMetric {
	return m.depth.WithLabelValues(name)
}

func (m *queueMetrics) NewAddsMetric(name string) workqueue.CounterMetric {
	return m.adds.WithLabelValues(name)
}

func (m *queueMetrics) NewLatencyMetric(name string) workqueue.HistogramMetric {
	return m.latency.WithLabelValues(name)
}

func (m *queueMetrics) NewWorkDurationMetric(name string) workqueue.HistogramMetric {
	return m.duration.WithLabelValues(name)
}

func (m *queueMetrics) NewUnfinishedWorkSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.unfinished.WithLabelValues(name)
}

func (m *queueMetrics) NewLongestRunningProcessorSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.longest.WithLabelValues(name)
}

func (m *queueMetrics) NewRetriesMetric(name string) workqueue.CounterMetric {
	return m.retries.WithLabelValues(name)
}
