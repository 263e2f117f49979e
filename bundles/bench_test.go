// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// BenchmarkVerify is what a host pays for a new release, by its number of files, signed by two keys or by a certificate.
func BenchmarkVerify(b *testing.B) {
	sigstore := bundlestest.NewSigstore(b, bundlestest.WithLog, bundlestest.WithTime, bundlestest.WithCT)
	for _, n := range []int{1, 100, 10_000} {
		f := bundlestest.New(b, "alice", "bob")
		files := map[string][]byte{}
		for i := range n {
			files[fmt.Sprintf("d%d/p%d.yaml", i%100, i)] = append(bundlestest.Policy(fmt.Sprint("p", i)), []byte("# "+strings.Repeat("x", 1150)+"\n")...)
		}
		doc := f.Doc(b, files, 1)
		certified := f.Sign(b, files, doc)
		certified[bundles.SignatureFile("ci")] = sigstore.Bundle(b, doc, ci())
		run := func(name string, all map[string][]byte, trust string) {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				raw, t := bundlestest.Raw(all), bundlestest.Load(b, []byte(trust))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := bundles.Verify(raw, t, bundles.Seen{}, bundlestest.Now()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("keys", f.Sign(b, files, doc, "alice", "bob"), f.TrustYAML(b, 1, 2, ""))
		run("certificate", certified, (&bundlestest.Fleet{}).TrustYAML(b, 1, 1, sigstore.Keyless(b, "ci", ciIssuer, ciSubject)))
	}
}
