// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

// TestCanonicalRelease: the fast way writes what RFC 8785's own implementation writes, whatever the fields hold.
func TestCanonicalRelease(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("0a", 32)
	for name, files := range map[string][]ReleaseFile{
		"nil":      nil,
		"none":     {},
		"plain":    {{"a.yaml", 0, sum}, {"b/c-d_e.yaml", 1400, sum}},
		"escaped":  {{`a"b\c`, 1, sum}, {"é\u2028<&>\x01\x7f", 2, sum}, {"\xff", 3, sum}},
		"sizes":    {{"a", -1, sum}, {"b", math.MaxInt64, sum}, {"c", 1 << 53, sum}, {"d", maxFileBytes + 1, sum}},
		"digests":  {{"a", 1, ""}, {"b", 1, `"`}, {"c", 1, strings.ToUpper(sum)}},
		"impostor": {{`"files":[`, 1, `"files":[]`}},
	} {
		for _, text := range []string{"acme", `"files":[]`, `x","files":[],"y":"`, "\\", "é"} {
			for _, acknowledge := range []bool{false, true} {
				r := &Release{
					Schema: ReleaseSchema, Name: text, Channel: text, Epoch: 1, Sequence: 7, Issued: time.Unix(1e9, 0).UTC(),
					Source: ReleaseSource{Commit: text, Repository: text}, Files: files, AcknowledgeRemoval: acknowledge,
				}
				want, err := canonical(r)
				if err != nil {
					t.Fatal(err)
				}
				got, err := r.canonical()
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, %q: %v\n%s\n%s", name, text, err, got, want)
				}
			}
		}
	}
}
