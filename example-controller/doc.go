// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Command example-controller is k8s.io/sample-controller, scaled out: it keeps one Deployment for each Foo, and all of
// its replicas work, each on Foos of its own.
//
// What makes it so is in sharding.go, and the lines of controller.go that take a context from the queue and put a token
// on what is written. The rest is a controller as any other:
//
//	main          flags, clients, the order in which things start and stop
//	options       the flags and what is wrong with them
//	sharding      the ring, the sharded informers, the queue
//	controller    event handlers, workers, syncHandler
//	deployment    what a Foo asks for
//	server        metrics, probes and the status page
//	recording     what was worked on, for a check from outside
//
// Its exit code is 0 after a graceful stop, 1 if it failed, 2 if it was called in a way that can't work.
package main
