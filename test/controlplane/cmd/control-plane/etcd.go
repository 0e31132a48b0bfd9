// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/url"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcd runs a cluster of one member, which serves clients on a URL.
func etcd(ctx context.Context, dir, client string) error {
	u, err := url.Parse(client)
	if err != nil {
		return err
	}
	c := embed.NewConfig()
	c.Dir = dir
	c.ListenClientUrls = []url.URL{*u}
	c.AdvertiseClientUrls = []url.URL{*u}
	// The only member has no peers to listen for.
	c.ListenPeerUrls = nil
	// The data must survive a killed process, for which the page cache is enough, but not
	// a power failure. Without fsync, the duration of a write does not depend on a slow
	// disk.
	c.UnsafeNoFsync = true
	c.LogLevel = "warn"

	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return err
	case <-e.Server.StopNotify():
		return errors.New("server stopped unexpectedly")
	}
}
