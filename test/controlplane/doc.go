// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controlplane runs a real Kubernetes control plane on this machine: etcd,
// kube-apiserver and, on request, the garbage collector, compiled from the Go module
// proxy. It needs only Go: no container, no binary downloads, no cluster.
//
// [Build] compiles the binary (minutes the first time, seconds later), [Start]
// starts one control plane on loopback ports, [ControlPlane.Stop] ends it.
//
// # Guarantees
//
//   - C1: When Start returns without an error, the API server is ready and the
//     namespace "default" exists.
//   - C2: Each [Server] can be stopped, killed, paused and started again independently. It
//     keeps its address and its data.
//   - C3: After Stop, no process is left and, unless [Options.Dir] was given, no file. No
//     process is left running if the parent panics or is killed.
//   - C4: Clients see a standard API server: RBAC, watch cache, watch lists, Leases, custom
//     resources, priority and fairness, with their defaults.
//
// # How it differs from a cluster
//
// There are no nodes and, except for the garbage collector, no controllers: a Deployment
// has no Pods, a ServiceAccount gets no token unless one is requested, a deleted namespace
// stays Terminating. The admission plugin ServiceAccount is disabled, so Pods can be
// created without a ServiceAccount. etcd does not fsync: the data survives a killed
// process, but not a power failure.
//
// # Concurrency
//
// All methods may be called from any goroutine.
//
// # Systems
//
// The package is tested on Linux. It is also written for other Unix systems; there, a
// paused server outlives a killed parent.
package controlplane
