// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "let TestScripts rewrite the expected output in testdata")

// TestScripts plays the protocol runs in testdata/*.txt. They are made to be read: each shows
// a typical run, in the format of etcd-io/raft's scripts. A block is one or more commands, a
// line "----", and the output up to the next empty line. Lines with # are comments. After a
// change of the protocol, -update rewrites the outputs, and the diff shows what has changed.
//
// The commands:
//
//	fleet MEMBER...         starts members, lets them share the work, and shows the result
//	start MEMBER [uid=UID]  starts a process in a Pod; hold=VERB as in hold
//	run DURATION            lets time pass
//	stop MEMBER             sends SIGTERM
//	kill MEMBER             kills the process
//	restart MEMBER          starts a process in the same Pod again
//	cut MEMBER              loses its requests and the events of its watch
//	stall MEMBER            loses the events of its watch only
//	heal MEMBER             ends both; its watch continues with what it missed
//	busy MEMBER             lets its work ignore that a drain ends it
//	idle MEMBER             ends that work
//	hold MEMBER VERB        keeps its requests with the verb on their way
//	deliver MEMBER          lets the requests that were held arrive
//	delete MEMBER           deletes its Lease by hand
//	status                  shows the members and the Leases
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playScript(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%s (-want +got; -update rewrites it):\n%s", file, diff)
			}
		})
	}
}

// playScript returns a script with the outputs that its commands have now.
func playScript(t *testing.T, script string) string {
	f := newScriptFleet(t)
	var result strings.Builder
	output := false
	for line := range strings.Lines(script) {
		switch line = strings.TrimSuffix(line, "\n"); {
		case output && line != "":
			continue // the expected output
		case line == "----":
			output = true
			fmt.Fprintf(&result, "----\n%s", f.takeOutput())
			continue
		case line != "" && !strings.HasPrefix(line, "#"):
			f.command(strings.Fields(line))
		}
		output = false
		fmt.Fprintln(&result, line)
	}
	if rest := f.takeOutput(); rest != "" {
		t.Errorf("the script ends without the output of its last commands:\n%s", rest)
	}
	return result.String()
}

func (f *scriptFleet) command(words []string) {
	f.t.Helper()
	argument := func(n int) string {
		if n >= len(words) {
			f.t.Fatalf("command %q: an argument is missing", words)
		}
		return words[n]
	}
	member := func() *scriptMember {
		m := f.members[argument(1)]
		if m == nil {
			f.t.Fatalf("command %q: there is no such member", words)
		}
		return m
	}
	switch words[0] {
	case "fleet":
		for _, name := range words[1:] {
			f.start(name, "uid-"+name, "")
		}
		f.settle()
		f.run(3 * time.Second)
		f.takeOutput()
		f.status()
	case "start":
		uid, holds := "uid-"+argument(1), ""
		for _, option := range words[2:] {
			if value, ok := strings.CutPrefix(option, "uid="); ok {
				uid = value
			} else if value, ok := strings.CutPrefix(option, "hold="); ok {
				holds = value
			}
		}
		f.start(words[1], uid, holds)
	case "run":
		d, err := time.ParseDuration(argument(1))
		if err != nil {
			f.t.Fatal(err)
		}
		f.run(d)
	case "stop":
		member().stop()
	case "kill":
		member().exit("is killed")
	case "restart":
		f.start(member().name, member().uid, "")
	case "cut":
		member().cut = true
	case "stall":
		member().stalled = true
	case "heal":
		member().cut, member().stalled = false, false
		f.showChanges()
	case "busy":
		member().busy = true
	case "idle":
		member().busy = false
		member().reportIdle()
	case "hold":
		member().holds = argument(2)
	case "deliver":
		member().deliver()
	case "delete":
		f.deleteByHand(argument(1))
	case "status":
		f.status()
	default:
		f.t.Fatalf("unknown command %q", words)
	}
	f.settle()
}
