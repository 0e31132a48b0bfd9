// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package faultproxy injects network faults between a client, such as a replica of the
// example controller, and a server, such as kube-apiserver or etcd. Everything is on
// loopback.
//
// A [Tunnel] forwards TCP connections and does not know their contents: TLS and HTTP/2
// are end-to-end. Its faults are those of a cable: cut, black hole in one direction or
// both, delay.
//
// A [Gateway] forwards HTTP requests and sorts them into classes ([Class]): writes, reads
// and watches of Leases and of other objects. Each class has its own [Rule]. Clients use
// HTTP/1.1 without TLS to connect to it, so that each request in flight has its own
// connection and a fault affects only that request. Configure a client with the result of
// [Gateway.Config].
//
// # Guarantees
//
//   - N1: A fault can be set, replaced and ended at any time. It applies to everything that
//     is sent after the call has returned; data that the proxy has read before may still
//     pass.
//   - N2: Without a fault, everything passes unchanged and immediately: the proxy does not
//     buffer the headers of a response or the events of a watch.
//   - N3: A stalled client gets neither data nor an error nor the end of the stream, even if
//     the server has ended. Through a Tunnel, the server does not learn either that the
//     client has ended.
//   - N4: When a stall of a Tunnel ends, the held data is delivered, as with TCP. When a
//     stall of a Gateway ends, every affected connection is reset, and no request that it
//     has held reaches the server.
//   - N5: A request that a rule with Late has held or delayed is executed afterwards, even
//     if its client has gone, and regardless of the next rule. What a watch has missed is
//     delivered.
//   - N6: A response is dropped only after the server has sent it completely. What it
//     reports has therefore happened.
//   - N7: A request that a rule cuts or fails does not reach the server.
//   - N8: A rule affects only its own class. With the same seed and the same order of
//     requests, a rule with a probability affects the same requests.
//   - N9: Everything that a rule affects is counted, by class and action. The counts can be
//     read at any time.
//   - N10: Close ends all connections and returns when everything that was started has ended.
//
// # What is not guaranteed
//
// That requests which were held by the same stall are executed in the order in which they
// arrived. That a server keeps a watch whose client does not read for a long time:
// kube-apiserver ends it when its buffers are full.
//
// # Concurrency
//
// All methods may be called from any goroutine.
package faultproxy
