// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/terminal"
)

// Exit codes.
const (
	exitFailed      = 1 // the demo could not run, or showed that a guarantee was violated
	exitUsage       = 2
	exitInterrupted = 130 // as in shells
)

// errInterrupted means that the user has ended the demo.
var errInterrupted = errors.New("interrupted")

func main() { os.Exit(command()) }

func command() int {
	o, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	}
	// client-go's log messages about servers that start and stop would disturb the screen.
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	rest.SetDefaultWarningHandler(rest.NoWarnings{})

	out, watched, done := standardOutput()
	defer done()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	d := newDemo(o, out, watched)
	stop := onInterrupt(out, cancel, d.leftBehind)
	err, left := d.run(ctx)
	stop()
	return d.report(err, left)
}

// standardOutput returns a screen if standard output is a terminal, plain lines otherwise.
func standardOutput() (out output, watched bool, done func()) {
	size := func() (int, int) {
		w, h, _ := terminal.Size(os.Stdout)
		return w, h
	}
	if _, _, is := terminal.Size(os.Stdout); !is {
		return newPlain(os.Stdout, terminal.LookOf(false)), false, func() {}
	}
	s := newScreen(os.Stdout, size, terminal.LookOf(true))
	quit := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		ticker := time.NewTicker(terminal.TickEvery)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				s.Tick()
			}
		}
	})
	return s, true, func() { close(quit); wait.Wait(); s.Close() }
}

// onInterrupt ends the demo at the first signal, and the process at the second one.
func onInterrupt(out output, cancel context.CancelCauseFunc, leftBehind func() []string) (stop func()) {
	signals := make(chan os.Signal, 2)
	// After a closed pipe (make demo | head), the demo must clean up as well.
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	quit := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for n := 0; ; {
			select {
			case <-quit:
				return
			case s := <-signals:
				if s == syscall.SIGPIPE && n > 0 {
					continue // sent for every line from now on
				}
				if n++; n > 1 {
					out.Close()
					out.Progress("")
					out.Say(text(bad, "Stopped without cleaning up. To remove what may be left:"))
					for _, command := range leftBehind() {
						out.Say(text(normal, "  %s", command))
					}
					os.Exit(exitInterrupted) // the kernel ends the replicas
				}
				cancel(errInterrupted)
				out.Close()
				out.Say(text(warn, "Interrupted: cleaning up. Press Ctrl-C again to stop without cleaning up."))
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(quit)
		wait.Wait()
	}
}

// report prints how the demo ended. left is what could not be cleaned up.
func (d *demo) report(err, left error) int {
	out := d.out
	out.Close()
	complain := func(prefix string, err error) {
		for l := range strings.Lines(prefix + err.Error()) {
			out.Say(text(bad, "%s", strings.TrimRight(l, "\n")))
		}
	}
	code := 0
	switch {
	case errors.Is(err, errInterrupted):
		code = exitInterrupted
	case err != nil:
		complain("", err)
		code = exitFailed
	}
	switch {
	case left != nil:
		complain("Not cleaned up: ", left)
		code = max(code, exitFailed)
	default:
		out.Say(text(faint, "Cleaned up: the demo left no process, file or object behind."))
	}
	switch {
	case len(d.replicas) == 0:
	case d.keep != "":
		out.Say(text(faint, "Logs and records of the replicas are in %s.", d.keep))
	case code == exitFailed:
		out.Say(text(faint, "Use -keep DIRECTORY to keep the logs and records of the replicas."))
	}
	return code
}
