// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/tom-ludwig/operator-scaling/example-controller/record"
	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/process"
)

// replica is one process of the example controller.
type replica struct {
	name    string
	address string // of its metrics and status pages
	log     string // file with what it printed
	record  string // file with each reconcile
	process *os.Process
	exited  chan struct{} // closed when it has ended
	err     error         // how it ended; set before exited is closed
	death   int64         // when, as record.Now gives it; set before exited is closed
}

// replicaOptions are what all replicas have in common.
type replicaOptions struct {
	binary     string
	dir        string // for logs and records
	kubeconfig string
	namespace  string
	ring       string
	lease      time.Duration
}

// startReplica starts a process and returns without waiting until it is ready.
func startReplica(o replicaOptions, name string) (*replica, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, fmt.Errorf("start %s: find a free port: %w", name, err)
	}
	r := &replica{
		name:    name,
		address: address,
		log:     filepath.Join(o.dir, name+".log"),
		record:  filepath.Join(o.dir, name+".record"),
		exited:  make(chan struct{}),
	}
	log, err := os.Create(r.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer func() { _ = log.Close() }() // the process has a copy
	cmd := exec.Command(o.binary,
		"--kubeconfig="+o.kubeconfig,
		"--name="+o.ring,
		"--watch-namespace="+o.namespace,
		"--http-address="+r.address,
		"--lease-duration="+o.lease.String(),
		"--record-to="+r.record,
	)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = environment(name, o.namespace)
	cmd.SysProcAttr = process.Attributes()
	started := make(chan error, 1)
	go func() {
		// The kernel's signal at the death of the parent is sent when the thread
		// ends that started the process: keep it as long as the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		r.process = cmd.Process
		started <- err
		if err == nil {
			r.err = cmd.Wait()
			r.death = record.Now()
			close(r.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return r, nil
}

// environment is this process's with the identity of a Pod that doesn't exist. It
// must not have a UID: the Lease would be owned by nothing, and collected as garbage.
func environment(name, namespace string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "POD_") && !strings.HasPrefix(v, "KUBERNETES_") {
			env = append(env, v)
		}
	}
	return append(env, "POD_NAME="+name, "POD_NAMESPACE="+namespace)
}

// freeAddress returns an address on loopback that nobody listens on at the moment.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// signal sends a signal. That the process has ended already is no error.
func (r *replica) signal(s os.Signal) error {
	if err := r.process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to %s: %w", s, r.name, err)
	}
	return nil
}

// stop asks the process to end, and kills it when ctx ends. It returns when the
// process has ended.
func (r *replica) stop(ctx context.Context) error {
	if err := r.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-r.exited:
		return nil
	case <-ctx.Done():
	}
	if err := r.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-r.exited
	return nil
}

// failure says how a process ended that should not have, with the end of its log.
func (r *replica) failure() error {
	return fmt.Errorf("%s has ended by itself: %w; the end of its log:\n%s", r.name, cmpErr(r.err, errors.New("exit status 0")), tail(r.log, 12))
}

func cmpErr(err, otherwise error) error {
	if err == nil {
		return otherwise
	}
	return err
}

// tail returns the last lines of a file, or why it can't be read.
func tail(path string, lines int) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
