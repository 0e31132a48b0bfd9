// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"bytes"
	"io"
	"net/http"
	"runtime/pprof"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// A caller may read a response to its end and not close it: net/http leaks nothing then. The
// transport must not leak a goroutine either after the drain of the work.
func TestWrapTransport_LeaksNothingForAResponseThatWasReadToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		q := newTestQueue(a.Sharder)
		defer q.ShutDown()
		time.Sleep(5 * time.Second)
		transport := a.WrapTransport(roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("{}"))}, nil
		}))
		ctx := begin(q, anItem)
		r, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://127.0.0.1/", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(r) //nolint:bodyclose // the test is about a body that is not closed
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(response.Body); err != nil {
			t.Fatal(err)
		}
		a.stop() // the drain ends the work
		<-ctx.Done()
		synctest.Wait()
		var all bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&all, 1)
		if strings.Contains(all.String(), "shard.outlive") {
			t.Error("a goroutine waits for a request whose response is complete")
		}
		_ = response.Body.Close()
		q.Done(anItem)
		if err := <-a.done; err != nil {
			t.Error(err)
		}
	})
}
