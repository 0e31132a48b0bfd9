// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

var (
	colorRule = regexp.MustCompile(`\.dot\.c(\d+),\.map i\.c\d+\{background:(hsl\(\d+ \d+% \d+%\))\}`)
	memberDot = regexp.MustCompile(`<span class="dot c(-?\d+)"></span>([^<]*)`)
	square    = regexp.MustCompile(`<i class="[a-z_]+ c(-?\d+)"`)
)

// statusPage returns the status page of a member. It fails if the template engine has
// replaced a value that it did not trust. colors has the color of each Lease, by name, and
// squares the number of partitions in each color; "" is the color of no member.
func statusPage(t *testing.T, m *member) (page string, colors map[string]string, squares map[string]int) {
	t.Helper()
	page = get(m.DebugHandler(), "/debug/shard").Body.String()
	if strings.Contains(page, "ZgotmplZ") {
		t.Error("the template engine has replaced a value of the status page: ZgotmplZ")
	}
	rules := map[string]string{}
	for _, rule := range colorRule.FindAllStringSubmatch(page, -1) {
		rules[rule[1]] = rule[2]
	}
	colors, squares = map[string]string{}, map[string]int{}
	for _, dot := range memberDot.FindAllStringSubmatch(page, -1) {
		colors[strings.TrimSuffix(dot[2], " (this one)")] = rules[dot[1]]
	}
	for _, i := range square.FindAllStringSubmatch(page, -1) {
		squares[rules[i[1]]]++
	}
	return page, colors, squares
}

// differ fails unless each of n Leases has a color of its own.
func differ(t *testing.T, colors map[string]string, n int) {
	t.Helper()
	if len(colors) != n {
		t.Errorf("the page shows %d Leases, want %d", len(colors), n)
	}
	of := map[string]string{}
	for name, color := range colors {
		if other, taken := of[color]; taken || color == "" {
			t.Errorf("%s has the color %q, and so has %q", name, color, other)
		}
		of[color] = name
	}
}

func TestStatusPage_EachMemberHasAColor(t *testing.T) {
	for _, n := range []int{1, 3, 40} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				members := []*member{start(t, cluster.Client("0"), "op-0")}
				if n > 1 {
					members = append(members, start(t, cluster.Client("1"), "op-1"))
				}
				time.Sleep(5 * time.Second)
				for i := len(members); i < n; i++ {
					putMember(cluster, fmt.Sprint("op-", i), fmt.Sprint("op-", i))
				}
				time.Sleep(2 * time.Second)
				_, colors, squares := statusPage(t, members[0])
				differ(t, colors, n)
				for name, color := range colors {
					if squares[color] == 0 {
						t.Errorf("no partition has the color of %s", name)
					}
				}
				if len(squares) != n {
					t.Errorf("the partitions have %d colors, want %d", len(squares), n)
				}
				for _, m := range members {
					if _, others, _ := statusPage(t, m); !maps.Equal(colors, others) {
						t.Error("two members show different colors")
					}
				}
				end(t, members...)
			})
		})
	}
}

// putMember adds a Lease of a member that does nothing. Its record is a copy of the first Lease's.
func putMember(cluster *shardtest.Cluster, name, pod string) {
	l := cluster.Leases(namespace)[0]
	l.Annotations["operator-scaling.tom-ludwig.github.io/member"] = pod
	holder := pod + "_1"
	l.Name, l.Spec.HolderIdentity = "foo-"+name, &holder
	l.Annotations[inspect.AnnotationChecksum] = inspect.Checksum(&l)
	cluster.Put(&l)
}

func TestStatusPage_States(t *testing.T) {
	predecessor(t, func(t *testing.T, cluster *shardtest.Cluster, objects *objects) {
		a, b := control(t, cluster, objects, "a", 10*time.Second), start(t, cluster.Client("b"), "b")
		phase := func(want string, extra ...string) {
			t.Helper()
			page, _, _ := statusPage(t, a.member)
			for _, text := range append(extra, "</td><td>"+want+"</td>") {
				if !strings.Contains(page, text) {
					t.Errorf("the page of a member that is %s does not show %q", want, text)
				}
			}
		}
		time.Sleep(5 * time.Second)
		phase("not joined", "Not ready:")
		time.Sleep(15 * time.Second)
		phase("active", "fence in ")
		cluster.Break("a", shardtest.Unreachable)
		time.Sleep(10 * time.Second)
		phase("active", "Fenced:")
		cluster.Break("a", shardtest.None)
		time.Sleep(5 * time.Second)
		item, _ := a.queue.Get()
		a.queue.Context(context.Background(), item)
		a.stop()
		time.Sleep(time.Second)
		phase("draining", item.String())
		a.queue.Done(item)
		a.close(t)
		end(t, b)
	})
}

// Text that other clients write on Leases appears neither in the markup of the page nor in
// its styles.
func TestStatusPage_HostileText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(5 * time.Second)
		hostile := []string{
			"</style><script>alert(1)</script>", `"onmouseover="alert(1)`, "red}body{display:none", "expression(alert(1))",
			"</title>\u202e", "url(javascript:alert(1))", strings.Repeat("x", 300), "\xff\x00",
		}
		for n, text := range hostile {
			putMember(cluster, fmt.Sprint("hostile-", n), text)
		}
		time.Sleep(time.Second)
		b := start(t, cluster.Client("b"), "b") // waits for the partitions that they claim
		time.Sleep(2 * time.Second)
		page, colors, _ := statusPage(t, b)
		differ(t, colors, len(hostile)+2)
		if !strings.Contains(page, "Waiting for") || !strings.Contains(page, "&lt;/style&gt;&lt;script&gt;") {
			t.Error("the page does not show the holders that b waits for")
		}
		style := page[strings.Index(page, "<style>"):strings.Index(page, "</style>")]
		for _, text := range hostile {
			if strings.Contains(style, text) {
				t.Errorf("%q is in the style sheet", text)
			}
			if strings.ContainsAny(text, `<">`) && strings.Contains(page, text) {
				t.Errorf("%q is in the page without escaping", text)
			}
		}
		time.Sleep(30 * time.Second)
		end(t, a, b)
	})
}

func TestStatusPage_LeaseOfALongName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		pod := strings.Repeat("x", 252)
		a := start(t, cluster.Client("a"), pod)
		time.Sleep(5 * time.Second)
		var report inspect.Report
		if err := json.Unmarshal(get(a.DebugHandler(), "/?format=json").Body.Bytes(), &report); err != nil {
			t.Fatal(err)
		}
		have := report.Members[0].Lease
		if want := cluster.Leases(namespace)[0].Name; have != want || want != lease.Name("foo-", pod) {
			t.Errorf("the page names the Lease %s, it is %s", have, want)
		}
		end(t, a)
	})
}
