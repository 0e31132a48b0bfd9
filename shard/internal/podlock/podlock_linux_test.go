// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package podlock_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/tom-ludwig/operator-scaling/shard/internal/podlock"
)

// holderUID is the environment variable that makes this test binary hold a lock until
// it is killed.
const holderUID = "PODLOCK_TEST_UID"

func TestMain(m *testing.M) {
	if uid := os.Getenv(holderUID); uid != "" {
		fmt.Println(podlock.New(member(uid)).TryAcquire())
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed, or until the test has died
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func member(uid string) podlock.Member {
	return podlock.Member{Namespace: "b", LeasePrefix: "foo", PodName: "a", PodUID: uid}
}

// uid returns one that no other test and no other run uses.
func uid(t *testing.T) string { return fmt.Sprintf("%s-%d", t.Name(), os.Getpid()) }

func TestLock_HasOneHolder(t *testing.T) {
	first, second := podlock.New(member(uid(t))), podlock.New(member(uid(t)))
	if !first.Usable() || first.Held() {
		t.Fatal("a new lock is not usable, or held")
	}
	for range 2 { // the holder may try again
		if !first.TryAcquire() || !first.Held() {
			t.Fatal("a free lock was not acquired")
		}
	}
	if second.TryAcquire() || second.Held() {
		t.Error("the lock has two holders")
	}
	second.Release() // frees nothing
	if second.TryAcquire() {
		t.Error("the lock was freed by a process that did not hold it")
	}
	first.Release()
	if !second.TryAcquire() {
		t.Error("a lock that was released was not acquired")
	}
	second.Release()
}

func TestLock_BelongsToOneMember(t *testing.T) {
	one := member(uid(t))
	lock := podlock.New(one)
	defer lock.Release()
	if !lock.TryAcquire() {
		t.Fatal("a free lock was not acquired")
	}
	for what, change := range map[string]func(*podlock.Member){
		"namespace":    func(m *podlock.Member) { m.Namespace = "c" },
		"Lease prefix": func(m *podlock.Member) { m.LeasePrefix = "bar" },
		"Pod":          func(m *podlock.Member) { m.PodName = "b" },
		"Pod UID":      func(m *podlock.Member) { m.PodUID += "-2" },
	} {
		other := one
		change(&other)
		lock := podlock.New(other)
		if !lock.TryAcquire() {
			t.Errorf("another %s has the same lock", what)
		}
		lock.Release()
	}
}

func TestLock_IsNotUsableWithoutAPodUID(t *testing.T) {
	lock := podlock.New(member(""))
	if lock.Usable() || lock.Held() {
		t.Error("usable or held")
	}
	lock.Release()
}

// A process that is killed cannot release its lock.
func TestLock_IsFreedByTheDeathOfItsHolder(t *testing.T) {
	holder := exec.CommandContext(t.Context(), os.Args[0])
	holder.Env = append(os.Environ(), holderUID+"="+uid(t))
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.StdinPipe(); err != nil { // stays open while this process lives
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "true\n" {
		t.Fatalf("the other process has not acquired the lock: %q, %v", line, err)
	}
	lock := podlock.New(member(uid(t)))
	defer lock.Release()
	if lock.TryAcquire() {
		t.Error("the lock of another live process was acquired")
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // it was killed
	if !lock.TryAcquire() {
		t.Error("the lock of a dead process was not acquired")
	}
}
