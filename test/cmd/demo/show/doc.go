// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Command show is the demo: it shows in the terminal how replicas of one operator
// share their work. Three replicas of the example controller, as processes of
// their own, work on a few hundred Foos; one joins, one is stopped, one is killed;
// each time the others take its objects over. At the end it says what that cost,
// and fails if an object was worked on by two at once or was forgotten.
//
// It runs on a control plane of its own (etcd and kube-apiserver, compiled from
// the Go module proxy: minutes the first time), or with -kubeconfig on a cluster
// of yours, in a namespace that it creates and deletes.
//
// What is shown is measured from outside: each replica is asked every 20 ms what
// it may work on (/debug/shard), and the reconciles are those that the replicas
// have recorded. The parts:
//
//	main, options                               flags, signals, exit codes
//	demo, script                                what happens in which order
//	build, cluster, remote, namespace, crd      where it happens
//	foos, replica                               to what
//	watch, records, judge                       what the replicas say of themselves
//	board, step, meter                          what that amounts to
//	view, text, screen, plain, summary          how it looks
package main
