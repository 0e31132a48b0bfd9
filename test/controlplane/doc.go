// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controlplane runs a real Kubernetes control plane on this machine:
// etcd, kube-apiserver and, if asked for, the garbage collector, compiled from
// the Go module proxy. It needs Go and nothing else: no container, no download
// of binaries, no cluster.
//
// [Build] compiles the binary (minutes the first time, seconds later), [Start]
// starts one control plane on loopback ports, [ControlPlane.Stop] ends it.
//
// # Guarantees
//
//   - C1: When Start returns without an error, the API server is ready and the
//     namespace "default" exists.
//   - C2: Each [Server] can be stopped, killed, paused and started again alone.
//     It keeps its address and its data.
//   - C3: After Stop no process and, unless [Options.Dir] was given, no file is
//     left. Neither is left running if the parent panics or is killed.
//   - C4: What a client sees is a stock API server: RBAC, watch cache, watch
//     lists, Leases, custom resources, priority and fairness, in their defaults.
//
// # How it differs from a cluster
//
// There are no nodes and, but for the garbage collector, no controllers: a
// Deployment stays without Pods, a ServiceAccount gets no token unless one is
// asked for, a deleted namespace stays Terminating. The admission plugin
// ServiceAccount is off, so Pods can be created without one. etcd does not fsync:
// the data survive a killed process, not a power cut.
//
// # Concurrency
//
// All methods may be called from any goroutine.
//
// # Systems
//
// Tested on Linux. It is written for other Unix systems too; there, a paused server
// outlives a parent that was killed.
package controlplane
