// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// palette has the colours of Pods, light and dark. They are the colours of Okabe and
// Ito, followed by those of Paul Tol, which people with any common form of colour
// blindness can distinguish. Red and vermilion are left out, because they are reserved
// for overlaps. The order makes neighbours differ in lightness as well.
var palette = [][2]string{
	{"#0072b2", "#3d9be0"}, // blue
	{"#e69f00", "#e69f00"}, // orange
	{"#009e73", "#12a67c"}, // green
	{"#cc79a7", "#d993bb"}, // pink
	{"#56b4e9", "#8fd0f5"}, // sky
	{"#332288", "#6f5fd0"}, // indigo
	{"#e5d52f", "#f0e442"}, // yellow
	{"#7a2150", "#a8467b"}, // wine
	{"#999933", "#b5b548"}, // olive
	{"#44aa99", "#5fd0bd"}, // teal
	{"#8c6d4f", "#b08e6c"}, // brown
	{"#7f7f9a", "#9c9cbc"}, // slate
}

func podStyles() string {
	var light, dark, classes strings.Builder
	for i, c := range palette {
		fmt.Fprintf(&light, "--c%d:%s;", i, c[0])
		fmt.Fprintf(&dark, "--c%d:%s;", i, c[1])
		fmt.Fprintf(&classes, ".c%[1]d{fill:var(--c%[1]d);--c:var(--c%[1]d)}\n", i)
		fmt.Fprintf(&classes, ".c%[1]d.fenced rect{fill:url(#fence%[1]d)}.c%[1]d.paused rect,.c%[1]d .paused{fill:url(#pause%[1]d)}\n", i)
	}
	return ":root{" + light.String() + "}\n@media(prefers-color-scheme:dark){:root{" + dark.String() + "}}\n" + classes.String()
}

// pod has the processes that ran one after another under one Pod name.
type pod struct {
	Name   string
	Colour int // of the palette
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
		p.list = append(p.list, pod{Name: name, Colour: i % len(palette)})
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
