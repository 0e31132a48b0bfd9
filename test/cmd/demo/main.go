// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Command demo compiles the package show in its directory, and replaces itself with it.
// It is small and needs only the standard library, so that a first-time user does not
// see an empty screen for the minutes that the rest takes to compile.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/process"
	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/terminal"
)

const exitInterrupted = 130 // as in shells

// quiet is the time after which the progress of the compilation is shown.
const quiet = 700 * time.Millisecond

func main() { os.Exit(launch()) }

func launch() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	binary, err := compile(ctx)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Println("Interrupted.")
		return exitInterrupted
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	err = syscall.Exec(binary, append([]string{"demo"}, os.Args[1:]...), os.Environ())
	fmt.Fprintf(os.Stderr, "run %s: %v\n", binary, err) // Exec returns only on failure
	return 1
}

// compile builds the demo, and shows the progress if that takes a while.
func compile(ctx context.Context) (binary string, err error) {
	_, file, _, _ := runtime.Caller(0)
	module := filepath.Join(filepath.Dir(file), "..", "..")
	if _, err := os.Stat(filepath.Join(module, "go.mod")); err != nil {
		return "", errors.New("the source files have moved: run the demo with make demo, or with go run from a checkout")
	}

	var size func() (int, int)
	_, _, is := terminal.Size(os.Stdout)
	if is {
		size = func() (int, int) { w, h, _ := terminal.Size(os.Stdout); return w, h }
	}
	task := terminal.NewTask(os.Stdout, terminal.LookOf(is), size)
	defer task.End()

	progress, done := make(chan string), make(chan struct{})
	go func() {
		defer close(done)
		binary, err = process.Build(ctx, module, "./cmd/demo/show", "demo", func(status string) { progress <- status })
	}()
	began, status := time.Now(), "checking for changes"
	ticker := time.NewTicker(terminal.TickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return binary, err
		case status = <-progress:
		case <-ticker.C:
			if time.Since(began) > quiet {
				task.Show("compiling the demo: " + status)
				task.Tick()
			}
		}
	}
}
