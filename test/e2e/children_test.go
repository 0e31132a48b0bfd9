// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// Events of a Deployment go to the member that owns its Foo, and to no other member.
func TestChildrenReachTheOwnerOfTheirParent(t *testing.T) {
	soak(t)
	repeat(t, testChildrenReachTheOwnerOfTheirParent)
}

func testChildrenReachTheOwnerOfTheirParent(t *attempt) {
	const objects, members = 90, 3
	w := newHarness(t)
	w.createFoos(0, objects)
	replicas := w.startMany(0, members)
	p := w.waitWorked(replicas...)
	w.waitQuiet(time.Second)
	before := w.deployments()

	began := now()
	w.eachFoo(0, 30, func(name string) error { return w.patchDeployment(name, `{"spec":{"replicas":7}}`) })
	w.eachFoo(30, 60, func(name string) error {
		return w.patchDeployment(name, `{"status":{"replicas":1,"updatedReplicas":1,"readyReplicas":1,"availableReplicas":1}}`, "status")
	})
	w.eachFoo(60, 90, w.deleteDeployment)
	w.eventually("the owners react", func(context.Context) error {
		after := w.deployments()
		foos, err := w.listFoos()
		if err != nil {
			return err
		}
		for i := range objects {
			name := fmt.Sprintf("foo-%d", i)
			d, there := after[name]
			switch {
			case !there:
				return fmt.Errorf("there is no Deployment %s", name)
			case *d.Spec.Replicas != 1:
				return fmt.Errorf("Deployment %s has %d replicas", name, *d.Spec.Replicas)
			case i >= 30 && i < 60 && foos[name].Status.AvailableReplicas != 1:
				return fmt.Errorf("the status of Foo %s does not have the available replica", name)
			case i >= 60 && d.UID == before[name].UID:
				return fmt.Errorf("Deployment %s was not deleted yet", name)
			}
		}
		return nil
	})
	w.waitQuiet(time.Second)
	if _, err := w.placed(t.Context(), replicas...); err != nil {
		t.Fatalf("something moved: %v", err)
	}

	pods := map[string]string{}
	for _, r := range replicas {
		pods[r.String()] = r.Pod()
	}
	worked := map[string]int{}
	for _, h := range w.histories() {
		for _, r := range h.Records {
			if r.Event != worklog.Start || r.Time < began {
				continue
			}
			worked[r.Key]++
			if owner := p.of(r.Key); owner != pods[h.Name] {
				t.Errorf("%s belongs to %s, but %s worked on it", r.Key, owner, h.Name)
			}
		}
	}
	total := 0
	for n := range maps.Values(worked) {
		total += n
	}
	if len(worked) != objects {
		t.Errorf("%d of %d objects were worked on", len(worked), objects)
	}
	figures.add(fmt.Sprintf("reconciles after %d changes of children", objects), fmt.Sprint(total), "")
	w.check(true)
	w.stop(replicas...)
}
