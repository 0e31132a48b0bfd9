// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
)

// maxMarks bounds the kinds in the annotation, and with maxVersion its size.
const (
	maxMarks   = 16
	maxVersion = 40
)

var kindPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,62}$`)

// encodeMarks writes "<kind>=<resourceVersion>", sorted and separated by commas.
// What a reader would refuse is left out, and so are kinds above the bound, the
// last by name: the same ones each time.
func encodeMarks(marks claim.Watermarks) string {
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(marks)) {
		if len(list) < maxMarks && checkMark(kind, marks[kind]) == nil {
			list = append(list, kind+"="+marks[kind])
		}
	}
	return strings.Join(list, ",")
}

// decodeMarks reads what encodeMarks wrote. With an error it returns no marks:
// they would only make this member wait.
func decodeMarks(text string) (claim.Watermarks, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxMarks*(63+1+maxVersion+1) {
		return nil, fmt.Errorf("%d bytes are too many", len(text))
	}
	marks := claim.Watermarks{}
	for entry := range strings.SplitSeq(text, ",") {
		kind, version, _ := strings.Cut(entry, "=")
		if err := checkMark(kind, version); err != nil {
			return nil, err
		}
		if marks[kind] = version; len(marks) > maxMarks {
			return nil, fmt.Errorf("more than %d kinds", maxMarks)
		}
	}
	return marks, nil
}

func checkMark(kind, version string) error {
	if !kindPattern.MatchString(kind) {
		return fmt.Errorf("%.100q is no kind", kind)
	}
	if _, err := resourceversion.CompareResourceVersion(version, version); err != nil || len(version) > maxVersion {
		return fmt.Errorf("kind %s: %.100q is no resourceVersion that can be compared", kind, version)
	}
	return nil
}
