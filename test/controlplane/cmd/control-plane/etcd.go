// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcd runs a cluster of one member until it receives SIGTERM or SIGINT.
func etcd() int {
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	dir := flags.String("data-dir", "", "data directory (required)")
	client := flags.String("client-url", "", "URL on which to serve clients, http://127.0.0.1:PORT (required)")
	_ = flags.Parse(os.Args[1:]) // ExitOnError
	if err := runEtcd(*dir, *client); err != nil {
		fmt.Fprintf(os.Stderr, "etcd: %v\n", err)
		return 1
	}
	return 0
}

func runEtcd(dir, client string) error {
	if dir == "" {
		return errors.New("--data-dir is required")
	}
	u, err := url.Parse(client)
	if err != nil {
		return fmt.Errorf("--client-url: %w", err)
	}
	if u.Host == "" {
		return fmt.Errorf("--client-url: %q has no host", client)
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

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)

	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-stop:
		return nil
	case err := <-e.Err():
		return err
	case <-e.Server.StopNotify():
		return errors.New("server stopped unexpectedly")
	}
}
