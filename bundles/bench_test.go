// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"fmt"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// BenchmarkVerify is what a host pays for a new release, by its number of files.
func BenchmarkVerify(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := bundlestest.New(b, "alice", "bob")
			files := map[string][]byte{}
			for i := range n {
				files[fmt.Sprintf("d%d/p%d.yaml", i%100, i)] = bundlestest.Policy(fmt.Sprint("p", i))
			}
			raw := bundlestest.Raw(f.Sign(b, files, f.Doc(b, files, 1), "alice", "bob"))
			trust := f.Trust(b, 1, 2, "")
			for b.Loop() {
				if _, err := bundles.Verify(raw, trust, bundles.Seen{}, bundlestest.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
