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

// maxVersion bounds, with claim.MaxWatermarks, the size of the annotation.
const maxVersion = 40

var namePattern = regexp.MustCompile(`^` + claim.WatermarkName + `$`)

// encodeWatermarks returns "<name>=<resourceVersion>" for each cache, sorted and separated
// by commas. It omits watermarks that a reader would reject. If there are more than
// the bound, it omits the last ones by name, so that it omits the same ones each time.
func encodeWatermarks(watermarks claim.Watermarks) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(watermarks)) {
		if len(list) < claim.MaxWatermarks && checkWatermark(name, watermarks[name]) == nil {
			list = append(list, name+"="+watermarks[name])
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
	if len(text) > claim.MaxWatermarks*(100+1+maxVersion+1) {
		return nil, fmt.Errorf("%d bytes exceed the size limit", len(text))
	}
	watermarks := claim.Watermarks{}
	for entry := range strings.SplitSeq(text, ",") {
		name, version, _ := strings.Cut(entry, "=")
		if err := checkWatermark(name, version); err != nil {
			return nil, err
		}
		if watermarks[name] = version; len(watermarks) > claim.MaxWatermarks {
			return nil, fmt.Errorf("more than %d", claim.MaxWatermarks)
		}
	}
	return watermarks, nil
}

func checkWatermark(name, version string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%.100q is not a valid name of a cache", name)
	}
	if !claim.ValidVersion(version) || len(version) > maxVersion {
		return fmt.Errorf("%s: %.100q is not a comparable resourceVersion", name, version)
	}
	return nil
}
