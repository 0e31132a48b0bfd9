// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e has the end-to-end tests: replicas of the example controller, as separate
// processes, on a real control plane. It contains only tests and their helpers.
//
// Tests share one control plane, unless they stop a server or need the garbage collector;
// those start their own. Each test has its own namespace and its own ring, and judges by
// three independent sources:
//
//   - package worklog, by the replicas' records of their work;
//   - package etcdlog, by the versions of Leases and objects in etcd;
//   - the replicas' own probes, metrics and status pages.
//
// The tests are grouped by what happens to the replicas:
//
//	membership     they start, scale, roll out other parameters, and share objects
//	stop_crash     they stop, are killed or paused, or the API server does not respond
//	identity       Pods and names that are used twice, invalid Leases, missing permissions
//	fencing        late writes, which the API server must refuse
//	measurement    figures that are printed and not judged
//
// The lease duration is 5 s in most tests, so that they are quick. No test fails because a
// machine is busy: measurements are printed in a table at the end, and a test that fails
// while a server or a replica did not respond starts over; see attempt. With -short, the
// longest tests are left out. These environment variables change a run:
//
//	E2E_BUILDFLAGS=-race  replicas are built with these flags of go build
//	E2E_KEEP=dir          logs, records and the control plane's data are kept there
//	E2E_FIGURES=file      the table is also written there
package e2e
