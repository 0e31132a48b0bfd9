// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package faultproxy puts network faults between a client, such as a replica of the
// example controller, and a server, such as kube-apiserver or etcd. Everything is on
// loopback.
//
// A [Tunnel] forwards TCP connections and knows nothing about what is in them: TLS
// and HTTP/2 pass from end to end. Its faults are those of a cable: cut, black hole
// in one direction or both, delay.
//
// A [Gateway] forwards HTTP requests and sorts them into classes ([Class]): writes,
// reads and watches of Leases and of other objects. Each class has a [Rule] of its
// own. Clients speak HTTP/1.1 without TLS to it, so that each request under way has a
// connection of its own and a fault hits that request alone. Give a client what
// [Gateway.Config] returns.
//
// # Guarantees
//
//   - N1: A fault can be set, replaced and ended at any time. It holds for all that is
//     sent after the call has returned; what the proxy has read before may still pass.
//   - N2: Without a fault all passes unchanged, and at once: the headers of an answer
//     and each event of a watch are not kept back until more is there.
//   - N3: What is stalled gets neither data nor an error nor an end, also if the server
//     has ended. Through a Tunnel, the server does not learn either that the client
//     has ended.
//   - N4: When a stall of a Tunnel ends, what was held is delivered, as TCP does. When
//     one of a Gateway ends, all that it has hit is reset, and no request that it has
//     held reaches the server.
//   - N5: A request that a rule with Late has held or delayed is carried out then, also
//     if its client has gone and whatever rule is next; and what a watch has missed is
//     delivered.
//   - N6: A dropped answer is dropped after the server has given it whole: what it says
//     was done.
//   - N7: A request that is cut or failed by a rule does not reach the server.
//   - N8: A rule hits no class but its own. With the same seed and the same order of
//     requests, a rule with a probability hits the same ones.
//   - N9: What was hit is counted, by class and effect, and can be read at any time.
//   - N10: Close ends all connections and returns when all that was started has ended.
//
// # What is not guaranteed
//
// That requests which one stall has held are carried out in the order in which they
// came. That a server keeps a watch which takes nothing for long: kube-apiserver ends
// it when its buffers are full.
//
// # Concurrency
//
// All methods may be called from any goroutine.
package faultproxy
