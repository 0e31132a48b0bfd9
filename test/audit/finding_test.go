// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestErrListsTheFirstFindingsOfEachKind(t *testing.T) {
	if err := Err(nil); err != nil {
		t.Errorf("no findings: %v", err)
	}
	all := []Finding{{Kind: "F1 a", Subject: "x", What: "is wrong"}}
	for i := range 12 {
		all = append(all, Finding{Kind: "F2 b", Subject: fmt.Sprint(i), What: "too"})
	}
	want := []string{"findings:", "     1  F1 a", "        x: is wrong", "    12  F2 b"}
	for i := range 10 {
		want = append(want, fmt.Sprintf("        %d: too", i))
	}
	if diff := cmp.Diff(append(want, ""), strings.Split(Err(all).Error(), "\n")); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}
