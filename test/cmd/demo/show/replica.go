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

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/process"
)

// replica is one process of the example controller.
type replica struct {
	name    string
	address string // of its metrics and status pages
	log     string // file with its output
	record  string // file with each reconcile
	process *os.Process
	exited  chan struct{} // closed when it has ended
	err     error         // how it ended; set before exited is closed
	death   int64         // when it ended, as returned by worklog.Now; set before exited is closed
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
		// The kernel sends the parent-death signal when the thread that started the
		// process ends, so keep that thread as long as the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		r.process = cmd.Process
		started <- err
		if err == nil {
			r.err = cmd.Wait()
			r.death = worklog.Now()
			close(r.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return r, nil
}

// environment returns this process's environment with the identity of a Pod that does
// not exist. It must not have a UID: the Lease would have an owner that does not exist,
// and would be garbage collected.
func environment(name, namespace string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "POD_") && !strings.HasPrefix(v, "KUBERNETES_") {
			env = append(env, v)
		}
	}
	return append(env, "POD_NAME="+name, "POD_NAMESPACE="+namespace)
}

// freeAddress returns an unused loopback address.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// signal sends a signal. It is not an error if the process has already ended.
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

// failure returns an error that describes the unexpected end of the process, with the end
// of its log.
func (r *replica) failure() error {
	return fmt.Errorf("%s exited unexpectedly: %w; end of its log:\n%s", r.name, cmpErr(r.err, errors.New("exit status 0")), tail(r.log, 12))
}

func cmpErr(err, otherwise error) error {
	if err == nil {
		return otherwise
	}
	return err
}

// tail returns the last lines of a file, or the error from reading it.
func tail(path string, lines int) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
