// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package chaos runs replicas of the example controller, real processes on a real
// control plane, under constant change of their objects, and injects faults: into
// the processes, the network between each of them and the API server, the servers,
// and the Leases. Then it judges what the replicas have recorded and what etcd has
// seen, and draws it.
//
//	make chaos
//
// What is checked:
//
//   - V1: No two processes work on an object at the same time. What a process does
//     that was paused past its fence counts only if it has an effect.
//   - V2: The tokens under which an object is worked on never go down.
//   - V3: After the faults have ended, each object is worked on at its last version.
//   - V4: No partition stays without an owner; for how long it was, by kind of fault,
//     is in the table. On a busy machine times are no proof of anything, so they
//     are shown beside what is promised, and a run fails only when they are far out.
//   - V5: No Lease claims what an active member has claimed before, and nobody
//     writes to an object without a claim: by the history of etcd, which a process
//     of its own reads, and not by what anybody says of itself.
//   - V6: The run was not empty: enough handovers, evictions, refused evictions,
//     contested claims, fences and faults of each kind.
//
// Faults overlap: up to three at a time on different replicas, beside those of the
// servers. The seed decides order, targets and times of the faults; what comes of them
// depends on the machine, too.
package chaos
