// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Command example-controller is k8s.io/sample-controller, scaled out: it keeps one Deployment for each Foo, and all its
// replicas work, each on its own Foos.
//
// The code for this is in sharding.go, and in the lines of controller.go that get a context from the queue and put a token
// on every write. The rest is an ordinary controller:
//
//	main          clients, the order in which the parts start and stop
//	options       the flags and their validation
//	sharding      the ring, the sharded informers, the queue
//	controller    event handlers, workers, syncHandler
//	deployment    the Deployment that a Foo specifies
//	server        metrics, probes and the status page
//	recording     records of all work, for a check by another program
//
// Its exit code is 0 after a graceful stop, 1 if it failed, 2 if the command line or the environment is invalid.
package main
