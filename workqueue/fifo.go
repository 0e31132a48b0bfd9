// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

// fifo holds the queued items of client-go's queue in their order: a circular buffer that
// implements workqueue.Queue. client-go calls it with its lock held. client-go's own
// implementation is a slice that grows at the end and is cut at the front; in a queue that
// is nearly empty it allocates on nearly every Push. What fifo saves pays for most of the
// filter's cost.
type fifo[T comparable] struct {
	ring []T // its length is 0 or a power of two; slots that are not in use are zero
	head int // index of the oldest; 0 <= head < len(ring), or 0
	n    int // number of items; 0 <= n <= len(ring)
}

const (
	fifoStart = 16
	fifoKept  = 1024 // a longer ring is freed when it is empty
)

// Touch implements workqueue.Queue: an item that is added again keeps its turn.
func (f *fifo[T]) Touch(T) {}

// Len implements workqueue.Queue.
func (f *fifo[T]) Len() int { return f.n }

// Push implements workqueue.Queue.
func (f *fifo[T]) Push(item T) {
	if f.n == len(f.ring) {
		longer := make([]T, max(fifoStart, 2*len(f.ring)))
		k := copy(longer, f.ring[f.head:])
		copy(longer[k:], f.ring[:f.head])
		f.ring, f.head = longer, 0
	}
	f.ring[(f.head+f.n)&(len(f.ring)-1)] = item
	f.n++
}

// Pop implements workqueue.Queue. It is not called when Len is 0.
func (f *fifo[T]) Pop() T {
	var none T
	item := f.ring[f.head]
	f.ring[f.head] = none // lets the garbage collector free the item
	f.head = (f.head + 1) & (len(f.ring) - 1)
	f.n--
	if f.n == 0 && len(f.ring) > fifoKept {
		f.ring, f.head = nil, 0
	}
	return item
}
