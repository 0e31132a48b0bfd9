// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Command control-plane is a Kubernetes control plane in one binary, built from
// the same sources as the real one:
//
//	control-plane etcd DIRECTORY http://127.0.0.1:PORT
//	control-plane kube-apiserver [kube-apiserver's own flags]
//	control-plane garbage-collector KUBECONFIG
//	control-plane kubectl [kubectl's own arguments]
//
// It is one binary, because the parts share most of their packages and linking takes a large
// part of the build time. The parts run as separate processes, so that a test can kill,
// pause and restart each of them independently.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // as kube-apiserver's own main does: --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // as kube-apiserver's own main does: client metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // as kube-apiserver's own main does: version metric
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// exitWithStdin is the environment variable that makes the process exit when its standard
// input ends. Package controlplane has the other end of the pipe, so no process is left
// when a test panics or is killed.
const exitWithStdin = "CONTROL_PLANE_EXIT_WITH_STDIN"

func main() {
	if os.Getenv(exitWithStdin) != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
	}
	os.Args = os.Args[1:] // each command parses os.Args as if it were the program's own
	var command string
	if len(os.Args) > 0 {
		command = os.Args[0]
	}
	switch {
	case command == "kube-apiserver":
		os.Exit(cli.Run(apiserverapp.NewAPIServerCommand()))
	case command == "kubectl":
		kubectlutil.CheckErr(cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand())) // prints the error as kubectl does, and exits
	case command == "etcd" && len(os.Args) == 3:
		run(func(ctx context.Context) error { return etcd(ctx, os.Args[1], os.Args[2]) })
	case command == "garbage-collector" && len(os.Args) == 2:
		run(func(ctx context.Context) error { return garbageCollector(ctx, os.Args[1]) })
	default:
		fmt.Fprintln(os.Stderr, "usage: control-plane etcd|kube-apiserver|garbage-collector|kubectl [arguments]")
		os.Exit(2)
	}
}

// run runs a command until it receives SIGTERM or SIGINT.
func run(command func(context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := command(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(1)
	}
}

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
