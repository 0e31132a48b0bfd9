// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cachesync makes sure that a member which gets partitions begins with caches
// that show what the last owner has written.
//
// Two members take part. The one that writes has a [WriteTracker]: it reads from the
// responses to writes which resourceVersion they have led to, finds the informers that show
// the object, and [WriteTracker.Watermarks] returns the highest version for each of them. The
// member publishes them on its Lease when it releases partitions. The one that gets the
// partitions compares such watermarks with its [Caches]; [Caches.Reached] returns those that
// they have reached. How long it waits for the others is not decided here, but in package claim.
//
//	response ─▶ WriteTracker ─▶ Watermarks ─▶ Lease ─▶ Reached ◀─ Caches ◀─ informers
//
// Only objects that an informer shows, or may show in a moment, count, and only versions that can be compared.
package cachesync
