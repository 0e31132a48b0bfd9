// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package chaos runs replicas of the example controller, as real processes on a real
// control plane, under constant change of their objects, and injects faults: into the
// processes, the network between each process and the API server, the servers, and the
// Leases. Then it checks the records of the replicas and the history of etcd, and draws
// a timeline.
//
//	make chaos
//
// Checks:
//
//   - V1: No two processes work on an object at the same time. What a process that was
//     paused past its fence does counts only if it has an effect.
//   - V2: The tokens under which an object is worked on never decrease.
//   - V3: After the faults have ended, each object is processed at its last version.
//   - V4: No partition stays without an owner. The table shows for how long partitions
//     had no owner, by kind of fault. On a busy machine, times do not prove anything.
//     They are therefore shown alongside the promised times, and a run fails only when
//     they are far too long.
//   - V5: No Lease claims a partition that an active member claimed before, and no member
//     writes to an object without a claim. This is checked against the history of etcd,
//     which a separate process reads, and not against what the replicas report.
//   - V6: The run exercised enough: handovers, evictions, refused evictions, contested
//     claims, fences, and faults of each kind.
//
// Faults overlap: up to three at a time on different replicas, in addition to those of
// the servers. The seed determines the order, targets and times of the faults. Their
// effects also depend on the machine.
package chaos
