// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package timeline draws what replica processes have recorded: who owned what
// when, and which fault was on at that time. The picture is one HTML file that
// needs nothing else, neither a network nor, to be read, its script.
//
// # How to read the picture
//
// Time goes from left to right, in all bands alike: what stands above one another
// happened at one time. From top to bottom:
//
//   - The verdict: green if nothing was found that must never be, red with the
//     counts if something was; then the figures of the run, and how long partitions
//     were without an owner, by the reason why the last owner stopped.
//   - Faults: a line for each target, more if faults on it overlap. A bar is a fault
//     that lasted, a thin mark one of a moment; its colour is that of its name. The
//     time of a fault that hits no process alone, such as an outage of
//     kube-apiserver, is shaded down through all other bands.
//   - Who owned what: a row a few pixels high for each partition, from 0 at the top.
//     A rectangle is the time in which a process was active there, in the colour of
//     its Pod; the processes that follow one another in one Pod take turns in being
//     full and a little paler. Where the background is seen, nobody owned the partition.
//     Hatching on a pale colour is a time in which the process still held the partition
//     but was fenced; crosses, one in which it was stopped. Red hatching with a red
//     frame is two at a time: two owners, or two at work on one key. It is always
//     drawn wide enough to be seen, and marked once more in the line above.
//   - Processes: a line for each Pod. The step chart is the number of partitions
//     that the process is active on, all to one scale. The line below it is thick
//     while the process has its place on the ring. Grey is fenced, crosses are
//     stopped, ✕ is a death without a word, ▾ one that left. Faults of a moment on
//     the process are marked, too.
//   - Findings: each with its time, as a link into the picture.
//
// What is shorter than a pixel, as most handovers are, is not seen until one comes
// closer. With scripts the picture can be zoomed (drag over a time, or turn the
// wheel with Ctrl held), and what lies under the pointer is spelt out: the process,
// the partitions, from when to when, and the faults that are on.
//
// # Guarantees
//
//   - D1: The same input gives the same bytes. No clock is read.
//   - D2: Each time of ownership that meets the time drawn is in the picture, on the
//     rows of its partitions, and no rectangle has a negative width.
//   - D3: Each overlap whose partition is known is in the picture.
//   - D4: The output is well-formed XML, whatever the names contain.
//
// # What is not guaranteed
//
// Times are rounded to microseconds. Only what the checker believes is drawn: see
// package checker for what it cannot see.
package timeline
