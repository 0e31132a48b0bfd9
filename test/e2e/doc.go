// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the whole: replicas of the example controller, as processes of
// their own, on a real control plane. It holds nothing but tests and what they
// share.
//
// Tests share one control plane, unless they stop a server or need the garbage
// collector: these have one of their own. Each has a namespace and a ring of its own,
// and judges with three witnesses that know nothing of each other:
//
//   - package checker, by what the replicas have recorded of their work;
//   - package history, by what etcd has seen of their Leases and writes;
//   - the replicas' own probes, metrics and status pages.
//
// The Lease duration is 5 s in most tests, so that they are quick. No test fails
// because a machine is busy: what is measured is printed in a table at the end, and a
// test that fails while a server or a replica gave no answer starts over; see attempt.
// With -short the longest tests are left out. These environment variables change a run:
//
//	E2E_BUILDFLAGS=-race  replicas are built with these flags of go build
//	E2E_KEEP=dir          logs, records and the control plane's data are kept there
//	E2E_FIGURES=file      the table is also written there
package e2e
