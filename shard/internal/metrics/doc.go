// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package metrics counts what a member does, and is its collector for Prometheus.
//
// What happens is counted by the methods of [Metrics] and by the counters of informers
// and queues. What is, and what the state machine has counted, is read when Prometheus
// asks: the function that [New] gets returns it as [Values].
package metrics
