// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"errors"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// FuzzTrust: a trust file either loads, and then a release can be held against it, or is refused by name. What loads is
// never without signers, nor without a threshold.
func FuzzTrust(f *testing.F) {
	fleet := bundlestest.New(f, "alice", "bob")
	sigstore := bundlestest.NewSigstore(f, bundlestest.WithLog, bundlestest.WithTime, bundlestest.WithCT)
	clock, linter := bundlestest.NewKey(f), bundlestest.NewKey(f)
	id := fleet.Keys["alice"].ID()
	seeds := []string{
		fleet.TrustYAML(f, 1, 2, ""),
		fleet.TrustYAML(f, 1, 1, sigstore.Keyless(f, "ci", ciIssuer, ciSubject)),
		fleet.TrustYAML(f, 1, 2, "freshness:\n  maxAge: 26h\n  signers:\n"+bundlestest.Signer(f, "ci-clock", clock)+
			"collectors:\n"+bundlestest.Signer(f, "roll-1", linter)+"revoked: {keys: ["+id+"], releases: [sha256:"+id+"]}\nminSequence: 4\n"+
			"scope: {kinds: [KubeArmorPolicy], namespaces: [shop]}\nrequireAncestry: true\n"),
		fleet.TrustYAML(f, 1, 2, "attestations:\n- type: "+bundles.PredicateLint+"\n  signers:\n"+bundlestest.Signer(f, "linter", linter)+
			"commits:\n  allowedSigners: |\n    ann@example.com namespaces=\"git\",valid-before=\"20270101Z\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"),
	}
	for i, seed := range seeds {
		if _, err := bundles.LoadTrust([]byte(seed)); err != nil {
			f.Fatalf("seed %d: %v", i, err)
		}
		f.Add([]byte(seed))
	}
	f.Add([]byte("freshness: {signers: [], maxAge: 1h}\nscope: {hosts: [a*, b]}\nrevoked: {keys: [aa]}\na: &a [*a]\n"))
	raw := bundlestest.Raw(fleet.Release(f, 5))
	f.Fuzz(func(t *testing.T, data []byte) {
		trust, err := bundles.LoadTrust(data)
		if err != nil {
			if bundles.RefusalName(err) == "" {
				t.Fatalf("an error without a name: %v", err)
			}
			return
		}
		if len(trust.Signers) == 0 || trust.Threshold.Audit < 1 || trust.Threshold.Enforce < trust.Threshold.Audit {
			t.Fatalf("%q loads as %+v", data, trust)
		}
		if _, err := bundles.Verify(raw, trust, bundles.Seen{}, bundlestest.Now()); !errors.Is(err, bundles.ErrUnsigned) {
			t.Fatalf("a release that nobody signed: %v", err)
		}
	})
}
