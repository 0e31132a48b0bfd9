// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Command example-controller is k8s.io/sample-controller, scaled out: it keeps one Deployment for each Foo, and all its
// replicas work, each on its own Foos.
//
// Everything except the command line is in package operator.
//
// Its exit code is 0 after a graceful stop, 1 if it failed, 2 if the command line or the environment is invalid.
package main
