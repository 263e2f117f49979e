// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"encoding/json"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// FuzzStatement: nothing at a tag .att, neither envelope nor annotations, passes a gate for what its signers did not say.
func FuzzStatement(f *testing.F) {
	s := bundlestest.NewSigstore(f, bundlestest.WithTime)
	const kind = "https://cosign.sigstore.dev/attestation/v1"
	gate := "attestations:\n- type: " + kind + "\n  signers:\n" + s.Keyless(f, "linter", ciIssuer, ciSubject) + bundlestest.Signer(f, "robot", bundlestest.NewKey(f))
	fleet := bundlestest.New(f, "alice")
	trust := bundlestest.Load(f, []byte(fleet.TrustYAML(f, 1, 1, gate)))
	statement := []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"00"}}],"predicateType":"` + kind + `","predicate":{}}`)
	by := ci()
	by.Envelope = true
	var made struct {
		Envelope json.RawMessage `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(s.Bundle(f, statement, by), &made); err != nil {
		f.Fatal(err)
	}
	one := s.Simple(f, statement, ci())
	f.Add([]byte(made.Envelope), one.Certificate, one.Log, one.Timestamp)
	f.Add([]byte(made.Envelope), "", "", "")
	f.Add([]byte(`{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"MEUC"}]}`), one.Certificate, `{"Payload":{"body":7}}`, "[]")
	doc := fleet.Doc(f, bundlestest.Files(), 6)
	files := fleet.Sign(f, bundlestest.Files(), doc, "alice")
	files[bundles.ArtifactManifestPath] = manifestOf(f, doc)
	f.Fuzz(func(t *testing.T, envelope []byte, certificate, log, timestamp string) {
		data, err := json.Marshal(bundles.SimpleStatement{Envelope: envelope, SimpleMaterial: bundles.SimpleMaterial{Certificate: certificate, Log: log, Timestamp: timestamp}})
		if err != nil {
			t.Fatal(err)
		}
		files[bundles.ArtifactSignaturesDir+"/0.statement.json"] = data
		if _, err := bundles.Verify(bundlestest.Raw(files), trust, bundles.Seen{}, bundlestest.Now()); bundles.RefusalName(err) != "attestation" {
			t.Fatalf("%q: %v", envelope, err)
		}
	})
}
