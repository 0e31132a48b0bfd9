// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package podlock_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/podlock"
)

// holderUID is the environment variable that makes this test binary hold a lock until
// it is killed.
const holderUID = "PODLOCK_TEST_UID"

func TestMain(m *testing.M) {
	if uid := os.Getenv(holderUID); uid != "" {
		held, err := podlock.New(member(uid)).TryAcquire()
		fmt.Println(held && err == nil)
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

// acquired tries to acquire a lock. No error is expected.
func acquired(t *testing.T, l *podlock.Lock) bool {
	t.Helper()
	held, err := l.TryAcquire()
	if err != nil {
		t.Error(err)
	}
	return held
}

func TestLock_HasOneHolder(t *testing.T) {
	first, second := podlock.New(member(uid(t))), podlock.New(member(uid(t)))
	if !first.Usable() || first.Held() {
		t.Fatal("a new lock is not usable, or held")
	}
	for range 2 { // the holder may try again
		if !acquired(t, first) || !first.Held() {
			t.Fatal("a free lock was not acquired")
		}
	}
	if acquired(t, second) || second.Held() {
		t.Error("the lock has two holders")
	}
	second.Release() // frees nothing
	if acquired(t, second) {
		t.Error("the lock was freed by a process that did not hold it")
	}
	first.Release()
	if !acquired(t, second) {
		t.Error("a lock that was released was not acquired")
	}
	second.Release()
}

func TestLock_BelongsToOneMember(t *testing.T) {
	one := member(uid(t))
	lock := podlock.New(one)
	defer lock.Release()
	if !acquired(t, lock) {
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
		if !acquired(t, lock) {
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

// A process that may open no more files cannot determine whether another process holds
// the lock.
func TestLock_ErrorIsNotAnotherProcess(t *testing.T) {
	lock := podlock.New(member(uid(t)))
	defer lock.Release()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	held, err := lock.TryAcquire()
	if e := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); e != nil {
		t.Fatal(e)
	}
	if held || lock.Held() || !errors.Is(err, syscall.EMFILE) {
		t.Errorf("held %v, error %v, want not held and EMFILE", held, err)
	}
	if !acquired(t, lock) {
		t.Error("the lock cannot be acquired after the error")
	}
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
	if acquired(t, lock) {
		t.Error("the lock of another live process was acquired")
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // it was killed
	if !acquired(t, lock) {
		t.Error("the lock of a dead process was not acquired")
	}
}

// A process may forget its lock, but while it lives no other process gets it.
func TestLock_OutlivesItsReferences(t *testing.T) {
	uid := fmt.Sprint(uid(t), "-", time.Now().UnixNano()) // the lock is never released
	if !acquired(t, podlock.New(member(uid))) {
		t.Fatal("a free lock was not acquired")
	}
	for range 3 {
		collected := make(chan struct{})
		runtime.SetFinalizer(new([16]byte), func(*[16]byte) { close(collected) })
		runtime.GC()
		<-collected // the finalizers run on one goroutine
	}
	if acquired(t, podlock.New(member(uid))) {
		t.Error("the garbage collector has released a lock")
	}
}
