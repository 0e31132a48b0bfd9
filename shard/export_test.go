// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import "context"

// Hold stops the loop, as a pause of the process would, until the context ends.
// It returns when the loop stands still, or with the context.
func (s *Sharder) Hold(ctx context.Context) {
	held := make(chan struct{})
	go s.inspect(ctx, func(*loop) {
		close(held)
		<-ctx.Done()
	})
	select {
	case <-held:
	case <-ctx.Done():
	}
}
