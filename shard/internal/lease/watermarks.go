// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// maxWatermarks bounds the kinds in the annotation, and with maxVersion its size.
const (
	maxWatermarks = 16
	maxVersion    = 40
)

var kindPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,62}$`)

// encodeWatermarks returns "<kind>=<resourceVersion>" for each kind, sorted and separated
// by commas. It omits watermarks that a reader would reject. If there are more kinds than
// the bound, it omits the last ones by name, so that it omits the same ones each time.
func encodeWatermarks(watermarks claim.Watermarks) string {
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(watermarks)) {
		if len(list) < maxWatermarks && checkWatermark(kind, watermarks[kind]) == nil {
			list = append(list, kind+"="+watermarks[kind])
		}
	}
	return strings.Join(list, ",")
}

// decodeWatermarks decodes the result of encodeWatermarks. If it returns an error, it
// returns no watermarks: they would only make this member wait.
func decodeWatermarks(text string) (claim.Watermarks, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxWatermarks*(63+1+maxVersion+1) {
		return nil, fmt.Errorf("%d bytes exceed the size limit", len(text))
	}
	watermarks := claim.Watermarks{}
	for entry := range strings.SplitSeq(text, ",") {
		kind, version, _ := strings.Cut(entry, "=")
		if err := checkWatermark(kind, version); err != nil {
			return nil, err
		}
		if watermarks[kind] = version; len(watermarks) > maxWatermarks {
			return nil, fmt.Errorf("more than %d kinds", maxWatermarks)
		}
	}
	return watermarks, nil
}

func checkWatermark(kind, version string) error {
	if !kindPattern.MatchString(kind) {
		return fmt.Errorf("%.100q is not a valid kind", kind)
	}
	if !claim.ValidVersion(version) || len(version) > maxVersion {
		return fmt.Errorf("kind %s: %.100q is not a comparable resourceVersion", kind, version)
	}
	return nil
}
