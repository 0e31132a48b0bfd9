// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package timeline draws what replica processes have recorded: which process owned
// which partition at which time, and which faults were active then. The chart is one
// self-contained HTML file. It needs no network, and can be read without its script.
//
// # How to read the chart
//
// Time runs from left to right, with the same scale in all bands. From top to bottom:
//
//   - The verdict: green if the run has no findings, red with the number of findings
//     otherwise; then the figures of the run, and how long partitions had no owner, by
//     the reason why the last owner stopped.
//   - Faults: one line for each target, more if faults on it overlap. A bar is a fault
//     that lasted, a thin mark a momentary one; the colour depends on its name. The
//     time of a fault that affects more than one process, such as an outage of
//     kube-apiserver, is shaded through all other bands.
//   - Ownership: one row, a few pixels high, for each partition, starting with 0 at the
//     top. A rectangle is the time in which a process was active on the partition, in
//     the colour of its Pod; successive processes of one Pod alternate between the full
//     and a paler colour. Where the background shows, the partition had no owner.
//     Hatching on a pale colour is a time in which the process still held the partition
//     but was fenced; crosses, one in which it was paused. Red hatching with a red
//     frame means two owners. It is always drawn wide enough to be visible, and marked
//     again in the line above.
//   - Processes: one line for each Pod. The step chart is the number of partitions on
//     which the process is active, with the same scale for all. The line below it is
//     thick while the process is on the ring. Grey means fenced, crosses mean paused,
//     ✕ means that the process died without leaving, ▾ that it left. Momentary faults
//     on the process are marked as well.
//   - Findings: each with its time, as a link into the chart.
//
// Anything shorter than a pixel, as most handovers are, is visible only after zooming
// in. With scripts enabled, you can zoom (drag over a time span, or turn the wheel while
// you hold Ctrl), and a tooltip describes what is under the pointer: the process, the
// partitions, the start and the end, and the active faults.
//
// # Guarantees
//
//   - D1: The same input produces the same bytes. The package reads no clock.
//   - D2: Each span of ownership is in the chart, in the rows of its partitions, and no rectangle has a negative width.
//   - D3: Each time with two owners is in the chart.
//   - D4: The output is well-formed XML, whatever characters the names contain.
//
// # What is not guaranteed
//
// Times are rounded to microseconds. The chart shows only what package worklog concludes;
// its documentation lists what it cannot see.
package timeline
