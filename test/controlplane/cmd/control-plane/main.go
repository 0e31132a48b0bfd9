// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Command control-plane is a Kubernetes control plane in one binary, built from
// the same sources as the real one:
//
//	control-plane etcd --data-dir=DIR --client-url=URL
//	control-plane kube-apiserver [kube-apiserver's own flags]
//	control-plane garbage-collector --kubeconfig=FILE
//	control-plane kubectl [kubectl's own arguments]
//
// It is one binary, because the parts share most of their packages and linking takes a large
// part of the build time. The parts run as separate processes, so that a test can kill,
// pause and restart each of them independently.
package main

import (
	"fmt"
	"io"
	"os"
)

// exitWithStdin is the environment variable that makes the process exit when its standard
// input ends. Package controlplane has the other end of the pipe, so no process is left
// when a test panics or is killed.
const exitWithStdin = "CONTROL_PLANE_EXIT_WITH_STDIN"

func main() {
	commands := map[string]func() int{
		"etcd":              etcd,
		"kube-apiserver":    apiserver,
		"garbage-collector": garbageCollector,
		"kubectl":           kubectl,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: control-plane etcd|kube-apiserver|garbage-collector|kubectl [arguments]")
		os.Exit(2)
	}
	if os.Getenv(exitWithStdin) != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
	}
	command := commands[os.Args[1]]
	// Each command parses os.Args as if it were the program's own.
	os.Args = os.Args[1:]
	os.Exit(command())
}
