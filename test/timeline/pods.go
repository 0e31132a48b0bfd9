// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// colours is the number of colours of Pods in the style sheet.
const colours = 12

// pod has the processes that ran one after another under one Pod name.
type pod struct {
	Name   string
	Colour int
	lives  []int
}

// pods has the Pods of a run, sorted by name, with numbers sorted by value. The order
// determines their colours.
type pods struct {
	list []pod
	of   []int          // by process
	by   map[string]int // by the name of a process, and of a pod
}

func podsOf(lives []worklog.Life) pods {
	names := make([]string, len(lives))
	for i, l := range lives {
		names[i] = podName(l)
	}
	p := pods{of: make([]int, len(lives)), by: map[string]int{}}
	distinct := slices.Clone(names)
	slices.SortFunc(distinct, compareNames)
	for i, name := range slices.Compact(distinct) {
		p.list = append(p.list, pod{Name: name, Colour: i % colours})
		p.by[name] = i
	}
	for i := range lives {
		at := p.by[names[i]]
		p.of[i] = at
		p.list[at].lives = append(p.list[at].lives, i)
	}
	for i, l := range lives {
		p.by[l.Process] = p.of[i] // the name of a process takes precedence over that of a Pod
	}
	return p
}

// podName extracts the Pod from a member's name, such as "op-0_1f3c". For a process that
// was never a member, it removes the number from the process's name, such as "op-0.003".
func podName(l worklog.Life) string {
	for _, member := range l.Members {
		if i := strings.LastIndexByte(member, '_'); i > 0 {
			return member[:i]
		}
	}
	if i := strings.LastIndexByte(l.Process, '.'); i > 0 {
		if _, err := strconv.Atoi(l.Process[i+1:]); err == nil {
			return l.Process[:i]
		}
	}
	return l.Process
}

// compareNames sorts op-2 before op-10.
func compareNames(a, b string) int {
	stemA, numberA := cutNumber(a)
	stemB, numberB := cutNumber(b)
	return cmp.Or(cmp.Compare(stemA, stemB), cmp.Compare(len(numberA), len(numberB)), cmp.Compare(a, b))
}

func cutNumber(s string) (stem, number string) {
	stem = strings.TrimRight(s, "0123456789")
	return stem, s[len(stem):]
}

// class returns the CSS class of a process: the colour of its Pod, paler for every
// second process.
func (p pods) class(life int) string {
	at := p.list[p.of[life]]
	class := "c" + strconv.Itoa(at.Colour)
	if slices.Index(at.lives, life)%2 == 1 {
		class += " alt"
	}
	return class
}
