// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// asReplica is the environment variable that makes the test binary act as the example
// controller: it responds on its address, writes records, and exits with the code in the
// variable when it receives SIGTERM.
const asReplica = "REPLICA_TEST_EXIT_CODE"

func TestMain(m *testing.M) {
	if code, ok := os.LookupEnv(asReplica); ok {
		os.Exit(runAsReplica(code))
	}
	os.Exit(m.Run())
}

func runAsReplica(code string) (exit int) {
	flags := map[string]string{}
	for _, arg := range os.Args[1:] {
		name, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		flags[name] = value
	}
	pod := os.Getenv("POD_NAME") + "/" + os.Getenv("POD_UID")
	w, err := worklog.Open(flags["record-to"], func() string { return pod })
	if err != nil {
		fmt.Println(err)
		return 1
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(rw http.ResponseWriter, _ *http.Request) {
		if flags["name"] == "not-yet" {
			http.Error(rw, "not on the ring", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/healthz", func(rw http.ResponseWriter, _ *http.Request) {
		http.Error(rw, "the loop is stuck", http.StatusInternalServerError)
	})
	mux.HandleFunc("/debug/shard", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `{"ring":%q,"member":%q}`, flags["name"], pod)
	})
	mux.HandleFunc("/metrics", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(rw, "# HELP x_total Xs.\nx_total{kind=\"a\",ring=\"r\"} 2\nx_total{kind=\"b\",ring=\"r\"} 3e0\nx_total_more 7\nplain 1.5\n")
	})
	go func() { fmt.Println(http.ListenAndServe(flags["http-address"], mux)) }()
	go func() {
		for range time.Tick(time.Millisecond) {
			w.Append(worklog.Record{Event: worklog.Write, Key: "a/b"})
		}
	}()
	<-stop
	fmt.Println("received SIGTERM")
	_, _ = fmt.Sscan(code, &exit)
	return exit
}

func start(t *testing.T, change func(*replica.Config)) *replica.Process {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := replica.Config{
		Binary: binary, Kubeconfig: "none", Dir: t.TempDir(), Ring: "r", Namespace: "ns", Pod: "op-0", PodUID: "u1",
		Env: []string{asReplica + "=0"},
	}
	if change != nil {
		change(&c)
	}
	p, err := replica.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := p.Ready(t.Context())
		if err == nil || errors.Is(err, replica.ErrNotReady) {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v\n%s", err, p.Tail(10))
		}
	}
}

func TestRequestsToAReplica(t *testing.T) {
	p := start(t, nil)
	ctx := t.Context()
	if err := p.Healthy(ctx); err == nil || !strings.Contains(err.Error(), "the loop is stuck") {
		t.Errorf("healthy: %v", err)
	}
	report, err := p.Report(ctx)
	if err != nil || report.Ring != "r" || report.Member != "op-0/u1" {
		t.Errorf("report %+v, %v", report, err)
	}
	for _, test := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"x_total", nil, 5},
		{"x_total", []string{`kind="b"`}, 3},
		{"x_total", []string{`kind="b"`, `ring="r"`}, 3},
		{"x_total", []string{`kind="c"`}, 0},
		{"plain", nil, 1.5},
		{"none", nil, 0},
	} {
		if got, err := p.Metric(ctx, test.name, test.labels...); err != nil || got != test.want {
			t.Errorf("metric %s%v is %v (%v), want %v", test.name, test.labels, got, err, test.want)
		}
	}
	other := start(t, func(c *replica.Config) { c.Ring = "not-yet" })
	if err := other.Ready(ctx); !errors.Is(err, replica.ErrNotReady) || !strings.Contains(err.Error(), "not on the ring") {
		t.Errorf("ready: %v", err)
	}
}

func TestP1_ProcessesOfAPodHaveSeparateFiles(t *testing.T) {
	dir := t.TempDir()
	inDir := func(c *replica.Config) { c.Dir = dir }
	a, b := start(t, inDir), start(t, inDir)
	if a.RecordFile() == b.RecordFile() || a.LogFile() == b.LogFile() || a.String() == b.String() {
		t.Errorf("%s and %s share a file", a, b)
	}
}

func TestP2_StopAndKillReturnWhenTheProcessHasEnded(t *testing.T) {
	p := start(t, nil)
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if !p.Ended() || p.ExitCode() != 0 || !strings.Contains(p.Tail(1), "received SIGTERM") {
		t.Errorf("ended %v with %d: %s", p.Ended(), p.ExitCode(), p.Tail(1))
	}
	if err := p.Terminate(); !errors.Is(err, replica.ErrEnded) {
		t.Errorf("a signal to a process that has ended: %v", err)
	}
	p = start(t, func(c *replica.Config) { c.Env = []string{asReplica + "=3"} })
	if err := p.Stop(); err == nil || p.ExitCode() != 3 {
		t.Errorf("exit code %d: %v, want an error", p.ExitCode(), err)
	}
	p = start(t, nil)
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if !p.Ended() || p.ExitCode() != -1 {
		t.Errorf("ended %v with %d", p.Ended(), p.ExitCode())
	}
}

func TestP3_HistoryIsConservative(t *testing.T) {
	p := start(t, nil)
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		if err := p.Pause(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		if err := p.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(20 * time.Millisecond)
	p.Kill()
	h, err := p.History()
	if err != nil {
		t.Fatal(err)
	}
	if h.Name != p.String() || len(h.Pauses) != 3 || h.Death == 0 || len(h.Records) == 0 {
		t.Fatalf("history of %q: %d pauses, death at %d, %d records", h.Name, len(h.Pauses), h.Death, len(h.Records))
	}
	for _, r := range h.Records {
		if r.Time > h.Death {
			t.Errorf("recorded %v after the death", time.Duration(r.Time-h.Death))
		}
		for i, pause := range h.Pauses {
			if pause.From < r.Time && r.Time < pause.To {
				t.Errorf("recorded %v into pause %d", time.Duration(r.Time-pause.From), i)
			}
		}
	}
}

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "replicas")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, err := replica.Build(ctx, dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := replica.Start(replica.Config{
		Binary: binary, Kubeconfig: os.Getenv("KUBECONFIG"), Dir: dir,
		Ring: "foo-operator", Namespace: "default", Pod: "op-0",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Kill()
	if err := p.Ready(ctx); err != nil {
		fmt.Println(err)
	}
	if err := p.Stop(); err != nil {
		fmt.Println(err)
	}
}
