// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Command show is the demo: it shows in the terminal how replicas of one operator share
// their work. Three replicas of the example controller, each a separate process, work on
// a few hundred Foos. One more joins, one is stopped, and one is killed; each time, other
// replicas take over its objects. At the end the demo prints the costs. It fails if two
// replicas worked on an object at the same time, or if an object was not processed.
//
// It runs on a local control plane (etcd and kube-apiserver, compiled from the Go module
// proxy, which takes minutes the first time). With -kubeconfig it runs on your cluster,
// in a namespace that it creates and deletes.
//
// Everything that it shows is measured from outside: it asks each replica every 20 ms
// what it may work on (/debug/shard), and counts the reconciles that the replicas have
// recorded. The files:
//
//	main, options                               flags, signals, exit codes
//	demo, script                                the steps of the demo
//	build, cluster, remote, namespace, crd      builds and the cluster
//	foos, replica                               the objects and the replicas
//	watch, records, judge                       what the replicas report and record
//	board, step, meter                          the state and the measurements
//	view, text, screen, plain, summary          the output
package main
