// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// stated is an in-toto statement about something.
func stated(t *testing.T, kind string, about []byte, predicate any) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": kind, "predicate": predicate,
		"subject": []any{map[string]any{"name": "x", "digest": map[string]any{"sha256": strings.TrimPrefix(bundles.DigestOf(about), "sha256:")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func provenance(commit, uri string) any {
	return map[string]any{"buildDefinition": map[string]any{"resolvedDependencies": []any{map[string]any{"uri": uri, "digest": map[string]any{"gitCommit": commit}}}}}
}

// TestAttestations gives a host that asks for a lint result by a key, and for provenance by an identity, one release
// with one of them as it should not be.
func TestAttestations(t *testing.T) {
	t.Parallel()
	s := bundlestest.NewSigstore(t, bundlestest.WithTime)
	f := bundlestest.New(t, "alice")
	linter, stranger := bundlestest.NewKey(t), bundlestest.NewKey(t)
	gate := "attestations:\n- type: " + bundles.PredicateLint + "\n  signers:\n" + bundlestest.Signer(t, "linter", linter) +
		"- type: " + bundles.PredicateProvenance + "\n  signers:\n" + s.Keyless(t, "builder", ciIssuer, ciSubject)
	trust := f.Trust(t, 1, 1, gate)
	files := f.Release(t, 6, "alice")
	doc := files[bundles.ReleasePath]
	const repository = "git+https://git.example.com/policy@refs/heads/main"
	lint := func(k *bundles.KeySigner, content map[string][]byte) []byte {
		out, err := k.AttestLint(t.Context(), content, 0)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	built := func(by bundlestest.Signing, about []byte, predicate any) []byte {
		by.Envelope = true
		return s.Bundle(t, stated(t, bundles.PredicateProvenance, about, predicate), by)
	}
	goodLint, goodBuild := lint(linter, bundlestest.Files()), built(ci(), doc, provenance(bundlestest.Commit, repository))
	other := ci()
	other.Subject += "2"
	two := twoSignatures(t, goodLint)
	for name, c := range map[string]struct {
		statements [][]byte
		want       string
	}{
		"both":                          {[][]byte{goodLint, goodBuild}, ""},
		"both, and others":              {[][]byte{[]byte("{}"), lint(stranger, bundlestest.Files()), goodLint, goodBuild}, ""},
		"none":                          {nil, "attestation"},
		"no provenance":                 {[][]byte{goodLint}, "attestation"},
		"no lint":                       {[][]byte{goodBuild}, "attestation"},
		"lint by a stranger":            {[][]byte{lint(stranger, bundlestest.Files()), goodBuild}, "attestation"},
		"lint by the release's signer":  {[][]byte{lint(f.Keys["alice"], bundlestest.Files()), goodBuild}, "attestation"},
		"lint of other files":           {[][]byte{lint(linter, map[string][]byte{"a.yaml": bundlestest.Policy("a")}), goodBuild}, "attestation"},
		"lint with two signatures":      {[][]byte{two, goodBuild}, "attestation"},
		"provenance by another":         {[][]byte{goodLint, built(other, doc, provenance(bundlestest.Commit, repository))}, "attestation"},
		"provenance of another release": {[][]byte{goodLint, built(ci(), []byte("{}"), provenance(bundlestest.Commit, repository))}, "attestation"},
		"another commit":                {[][]byte{goodLint, built(ci(), doc, provenance(strings.Repeat("2", 40), repository))}, "attestation"},
		"another repository":            {[][]byte{goodLint, built(ci(), doc, provenance(bundlestest.Commit, "git+https://git.example.com/fork@refs/heads/main"))}, "attestation"},
		"no commit":                     {[][]byte{goodLint, built(ci(), doc, map[string]any{})}, "attestation"},
		"a lint result as provenance":   {[][]byte{goodLint, s.Bundle(t, stated(t, bundles.PredicateLint, doc, map[string]any{"result": "pass"}), bundlestest.Signing{Issuer: ciIssuer, Subject: ciSubject, Envelope: true})}, "attestation"},
	} {
		all := with(files, "x", nil)
		for _, data := range c.statements {
			all[bundles.AttestationFile(data)] = data
		}
		v, err := bundles.Verify(bundlestest.Raw(all), trust, bundles.Seen{}, bundlestest.Now())
		if got := bundles.RefusalName(err); got != c.want {
			t.Errorf("%s: %q (%v), wanted %q", name, got, err, c.want)
		}
		if err == nil {
			if _, err := v.Again(trust, bundles.Seen{}, bundlestest.Now()); err != nil {
				t.Errorf("%s: out of memory: %v", name, err)
			}
		}
	}
	failed := stated(t, bundles.PredicateLint, doc, map[string]any{"result": "fail"})
	trust = f.Trust(t, 1, 1, "attestations:\n- type: "+bundles.PredicateLint+"\n  signers:\n"+s.Keyless(t, "linter", ciIssuer, ciSubject))
	bad := ci()
	bad.Envelope = true
	data := s.Bundle(t, failed, bad)
	if _, err := bundles.Verify(bundlestest.Raw(with(files, bundles.AttestationFile(data), data)), trust, bundles.Seen{}, bundlestest.Now()); bundles.RefusalName(err) != "attestation" {
		t.Errorf("a failed lint: %v", err)
	}
}

// twoSignatures doubles the signature of an envelope.
func twoSignatures(t *testing.T, bundle []byte) []byte {
	t.Helper()
	var b map[string]any
	if err := json.Unmarshal(bundle, &b); err != nil {
		t.Fatal(err)
	}
	envelope, ok := b["dsseEnvelope"].(map[string]any)
	if !ok {
		t.Fatal("no envelope")
	}
	list, ok := envelope["signatures"].([]any)
	if !ok {
		t.Fatal("no signatures")
	}
	envelope["signatures"] = append(list, list[0])
	out, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
