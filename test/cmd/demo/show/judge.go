// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// verdict is the result of checking the records of the replicas.
type verdict struct {
	reconciles int
	by         []int    // reconciles, by member
	overlaps   []string // times at which two members worked on the same object
	forgotten  []string // objects whose last version was not processed
	faults     []string // other violations that the checker found
}

// judge reads the records of the replicas, all of which have ended, and compares them
// with the final state of the objects.
func judge(replicas []*replica, final []v1alpha1.Foo) (verdict, error) {
	var processes []worklog.Process
	for _, r := range replicas {
		p, err := worklog.ReadFile(r.record)
		if err != nil {
			return verdict{}, fmt.Errorf("read the records of %s: %w", r.name, err)
		}
		p.Name, p.Death = r.name, r.death
		processes = append(processes, p)
	}
	versions := map[string]string{}
	for _, foo := range final {
		versions[foo.Namespace+"/"+foo.Name] = strconv.FormatInt(foo.Generation, 10)
	}
	report := worklog.Check(processes, worklog.Options{Final: versions})

	v := verdict{reconciles: report.Reconciles}
	for _, p := range report.Processes {
		v.by = append(v.by, p.Reconciles)
	}
	for _, f := range report.Findings {
		switch f.Kind {
		case worklog.Overlap, worklog.ActiveTwice:
			v.overlaps = append(v.overlaps, f.Subject+": "+f.What)
		case worklog.Loss:
			v.forgotten = append(v.forgotten, f.Subject+": "+f.What)
		default:
			v.faults = append(v.faults, f.String())
		}
	}
	return v, nil
}
