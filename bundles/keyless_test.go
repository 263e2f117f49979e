// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

const (
	ciIssuer  = "https://token.actions.githubusercontent.com"
	ciSubject = "https://github.com/acme/policy/.github/workflows/publish.yml@refs/heads/main"
)

// ci is a signature as it should be.
func ci() bundlestest.Signing { return bundlestest.Signing{Issuer: ciIssuer, Subject: ciSubject} }

// keylessTrust trusts one identity of a deployment and nobody else.
func keylessTrust(t *testing.T, s *bundlestest.Sigstore) *bundles.Trust {
	t.Helper()
	trust, err := bundles.LoadTrust([]byte((&bundlestest.Fleet{}).TrustYAML(t, 1, 1, s.Keyless(t, "ci", ciIssuer, ciSubject))))
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

func keylessRelease(t *testing.T, bundle func(doc []byte) []byte) *bundles.Raw {
	t.Helper()
	f := &bundlestest.Fleet{}
	doc := f.Doc(t, bundlestest.Files(), 6)
	files := f.Sign(t, bundlestest.Files(), doc)
	files[bundles.SignatureFile("ci")] = bundle(doc)
	return bundlestest.Raw(files)
}

// TestKeyless verifies signatures by certificates under each kind of trusted root, years after the certificate
// ended: only what log and timestamp authority witnessed counts, never the clock.
func TestKeyless(t *testing.T) {
	t.Parallel()
	all := []bundlestest.Part{bundlestest.WithLog, bundlestest.WithTime, bundlestest.WithCT}
	late := bundlestest.Issued().Add(11 * time.Minute)
	early := bundlestest.Issued().Add(-time.Minute)
	for _, c := range []struct {
		name   string
		parts  []bundlestest.Part
		change func(*bundlestest.Signing)
		want   string
	}{
		{"log, time and certificate log", all, nil, ""},
		{"log only", all[:1], nil, ""},
		{"time only", all[1:2], nil, ""},
		{"log without time", all, func(s *bundlestest.Signing) { s.NoTime = true }, ""},
		{"not in the log", all, func(s *bundlestest.Signing) { s.NoLog = true }, "not-logged"},
		{"not in the only log", all[:1], func(s *bundlestest.Signing) { s.NoLog = true }, "not-logged"},
		{"no time", all[1:2], func(s *bundlestest.Signing) { s.NoTime = true }, "untimed"},
		{"no certificate log", all, func(s *bundlestest.Signing) { s.NoSCT = true }, "untrusted-certificate"},
		{"stamped after the certificate", all[1:2], func(s *bundlestest.Signing) { s.Witnessed = late }, "untrusted-certificate"},
		{"stamped before the certificate", all[1:2], func(s *bundlestest.Signing) { s.Witnessed = early }, "untrusted-certificate"},
		{"logged after the certificate", all[:1], func(s *bundlestest.Signing) { s.Witnessed = late }, "not-logged"},
		{"another subject", all, func(s *bundlestest.Signing) { s.Subject += "2" }, "wrong-identity"},
		{"another issuer", all, func(s *bundlestest.Signing) { s.Issuer += "/x" }, "wrong-identity"},
		{"another branch", all, func(s *bundlestest.Signing) { s.Subject = strings.Replace(ciSubject, "main", "dev", 1) }, "wrong-identity"},
		{"subject as a mail address", all, func(s *bundlestest.Signing) { s.Subject = "ci@acme.example" }, "wrong-identity"},
		{"two subjects", all, func(s *bundlestest.Signing) { s.Also = "mallory@example.com" }, "wrong-identity"},
		{"two subjects, the trusted one second", all, func(s *bundlestest.Signing) { s.Subject, s.Also = "https://mallory.example/x", ciSubject }, "wrong-identity"},
		{"an attestation", all, func(s *bundlestest.Signing) { s.Envelope = true }, "dsse"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := bundlestest.NewSigstore(t, c.parts...)
			by := ci()
			if c.change != nil {
				c.change(&by)
			}
			raw := keylessRelease(t, func(doc []byte) []byte { return s.Bundle(t, doc, by) })
			v, err := bundles.Verify(raw, keylessTrust(t, s), bundles.Seen{}, bundlestest.Now().AddDate(5, 0, 0))
			if got := bundles.RefusalName(err); got != c.want {
				t.Fatalf("%q (%v), wanted %q", got, err, c.want)
			}
			if err == nil && (v.Level() != bundles.LevelEnforce || !strings.Contains(v.Checks()[4].Evidence, "witnessed by")) {
				t.Fatalf("%s: %+v", v.Level(), v.Checks()[4])
			}
			if by.Envelope {
				return
			}
			// The same over the artifact, as cosign's older kind has it at a tag .sig.
			raw = simpleRelease(t, func(payload []byte) any { return s.Simple(t, payload, by) })
			v, err = bundles.Verify(raw, keylessTrust(t, s), bundles.Seen{}, bundlestest.Now().AddDate(5, 0, 0))
			if got := bundles.RefusalName(err); got != c.want {
				t.Fatalf("at .sig: %q (%v), wanted %q", got, err, c.want)
			}
			if err != nil {
				return
			}
			if again, err := v.Again(keylessTrust(t, s), bundles.Seen{}, bundlestest.Now()); err != nil || again.Level() != bundles.LevelEnforce {
				t.Fatalf("kept: %v", err)
			}
		})
	}
}

// simpleRelease is a release that came out of a registry, with one signature at its tag .sig.
func simpleRelease(t testing.TB, sign func(payload []byte) any) *bundles.Raw {
	t.Helper()
	f := &bundlestest.Fleet{}
	doc := f.Doc(t, bundlestest.Files(), 6)
	files := f.Sign(t, bundlestest.Files(), doc)
	manifest := manifestOf(t, doc)
	files[bundles.ArtifactManifestPath] = manifest
	var err error
	files[bundles.ArtifactSignaturesDir+"/0.simple.json"], err = json.Marshal(sign(simplePayload(bundles.DigestOf(manifest))))
	if err != nil {
		t.Fatal(err)
	}
	return bundlestest.Raw(files)
}

// manifestOf is the manifest of the artifact with this release.json.
func manifestOf(t testing.TB, doc []byte) []byte {
	t.Helper()
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: bundles.ArtifactType, Layers: []v1.Descriptor{},
		Config: v1.Descriptor{MediaType: bundles.ArtifactConfigType, Size: int64(len(doc)), Digest: hashOf(t, doc)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

func simplePayload(digest string) []byte {
	return []byte(`{"critical":{"identity":{"docker-reference":"acme/policy"},"image":{"docker-manifest-digest":"` + digest +
		`"},"type":"cosign container image signature"},"optional":null}`)
}

func hashOf(t testing.TB, data []byte) v1.Hash {
	t.Helper()
	h, err := v1.NewHash(bundles.DigestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestSimpleSignaturesThatDoNotCount: by a certificate over another artifact, with another's log entry or timestamp, or
// none that can be read.
func TestSimpleSignaturesThatDoNotCount(t *testing.T) {
	t.Parallel()
	parts := []bundlestest.Part{bundlestest.WithLog, bundlestest.WithTime}
	ours, theirs := bundlestest.NewSigstore(t, parts...), bundlestest.NewSigstore(t, parts...)
	other := simplePayload("sha256:" + strings.Repeat("0", 64))
	for name, c := range map[string]struct {
		change func(s *bundles.SimpleSignature, payload []byte)
		want   string
	}{
		"over another artifact":                           {func(s *bundles.SimpleSignature, _ []byte) { *s = ours.Simple(t, other, ci()) }, "altered"},
		"a payload that was replaced":                     {func(s *bundles.SimpleSignature, p []byte) { *s = ours.Simple(t, other, ci()); s.Payload = p }, "untrusted-certificate"},
		"another deployment's":                            {func(s *bundles.SimpleSignature, p []byte) { *s = theirs.Simple(t, p, ci()) }, "not-logged"},
		"the log entry of another":                        {func(s *bundles.SimpleSignature, p []byte) { s.Log = ours.Simple(t, p, ci()).Log }, "not-logged"},
		"the timestamp of another, and the log says when": {func(s *bundles.SimpleSignature, p []byte) { s.Timestamp = ours.Simple(t, p, ci()).Timestamp }, ""},
		"another's certificate":                           {func(s *bundles.SimpleSignature, p []byte) { s.Certificate = ours.Simple(t, p, ci()).Certificate }, "not-logged"},
		"a certificate for a key":                         {func(s *bundles.SimpleSignature, _ []byte) { s.Certificate = "" }, "too-few-signers"},
		"two certificates":                                {func(s *bundles.SimpleSignature, _ []byte) { s.Certificate += s.Certificate }, "too-few-signers"},
		"a log entry that is none":                        {func(s *bundles.SimpleSignature, _ []byte) { s.Log = `{"Payload":{"body":7}}` }, "too-few-signers"},
		"a timestamp that is none":                        {func(s *bundles.SimpleSignature, _ []byte) { s.Timestamp = `[]` }, "too-few-signers"},
	} {
		raw := simpleRelease(t, func(payload []byte) any {
			s := ours.Simple(t, payload, ci())
			c.change(&s, payload)
			return s
		})
		_, err := bundles.Verify(raw, keylessTrust(t, ours), bundles.Seen{}, bundlestest.Now())
		if got := bundles.RefusalName(err); got != c.want {
			t.Errorf("%s: %q (%v), wanted %q", name, got, err, c.want)
		}
	}
}

// FuzzSimple: no payload, signature, certificate, log entry and timestamp count for an artifact that nobody signed.
func FuzzSimple(f *testing.F) {
	s := bundlestest.NewSigstore(f, bundlestest.WithLog, bundlestest.WithTime)
	trust, err := bundles.LoadTrust([]byte((&bundlestest.Fleet{}).TrustYAML(f, 1, 1, s.Keyless(f, "ci", ciIssuer, ciSubject))))
	if err != nil {
		f.Fatal(err)
	}
	for _, by := range []bundlestest.Signing{ci(), {Issuer: ciIssuer, Subject: "a@example.com"}} {
		one := s.Simple(f, simplePayload("sha256:"+strings.Repeat("0", 64)), by)
		f.Add(one.Payload, one.Signature, one.Certificate, one.Log, one.Timestamp)
	}
	f.Fuzz(func(t *testing.T, payload []byte, signature, certificate, log, timestamp string) {
		raw := simpleRelease(t, func([]byte) any {
			material := bundles.SimpleMaterial{Certificate: certificate, Log: log, Timestamp: timestamp}
			return bundles.SimpleSignature{Payload: payload, Signature: signature, SimpleMaterial: material}
		})
		if _, err := bundles.Verify(raw, trust, bundles.Seen{}, bundlestest.Now()); bundles.RefusalName(err) == "" {
			t.Fatalf("%q: %v", payload, err)
		}
	})
}

// TestKeylessForeign holds what another deployment signed, and what was signed over something else, away.
func TestKeylessForeign(t *testing.T) {
	t.Parallel()
	parts := []bundlestest.Part{bundlestest.WithLog, bundlestest.WithTime}
	ours, theirs := bundlestest.NewSigstore(t, parts...), bundlestest.NewSigstore(t, parts...)
	trust := keylessTrust(t, ours)
	splice := func(doc []byte) []byte { // our log and time for another signature
		var mine, other map[string]any
		for text, into := range map[string]*map[string]any{string(ours.Bundle(t, doc, ci())): &mine, string(ours.Bundle(t, doc, ci())): &other} {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				t.Fatal(err)
			}
		}
		mine["messageSignature"] = other["messageSignature"]
		out, err := json.Marshal(mine)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, c := range map[string]struct {
		bundle func([]byte) []byte
		want   string
	}{
		"another deployment, same names": {func(doc []byte) []byte { return theirs.Bundle(t, doc, ci()) }, "not-logged"},
		"over another document":          {func([]byte) []byte { return ours.Bundle(t, []byte("{}"), ci()) }, "altered"},
		"another signature's log entry":  {splice, "not-logged"},
		"a bare key":                     {func(doc []byte) []byte { return bundlestest.Bundle(t, bundlestest.NewKey(t), doc) }, "too-few-signers"},
	} {
		_, err := bundles.Verify(keylessRelease(t, c.bundle), trust, bundles.Seen{}, bundlestest.Now())
		if got := bundles.RefusalName(err); got != c.want {
			t.Errorf("%s: %q (%v), wanted %q", name, got, err, c.want)
		}
	}
}

// TestKeylessCounts counts an identity once, however often and with whatever certificates it signed, and beside keys.
func TestKeylessCounts(t *testing.T) {
	t.Parallel()
	s := bundlestest.NewSigstore(t, bundlestest.WithLog)
	f := bundlestest.New(t, "alice")
	trust := f.Trust(t, 1, 2, s.Keyless(t, "ci", ciIssuer, ciSubject))
	doc := f.Doc(t, bundlestest.Files(), 6)
	files := f.Sign(t, bundlestest.Files(), doc)
	for _, name := range []string{"a", "b", "c"} {
		files[bundles.SignatureFile(name)] = s.Bundle(t, doc, ci())
	}
	v, err := bundles.Verify(bundlestest.Raw(files), trust, bundles.Seen{}, bundlestest.Now())
	if err != nil || v.Level() != bundles.LevelAudit || len(v.Signers()) != 1 {
		t.Fatalf("%v %+v", err, v)
	}
	files[bundles.SignatureFile("alice")] = bundlestest.Bundle(t, f.Keys["alice"], doc)
	v, err = bundles.Verify(bundlestest.Raw(files), trust, bundles.Seen{}, bundlestest.Now())
	if err != nil || v.Level() != bundles.LevelEnforce || len(v.Signers()) != 2 {
		t.Fatalf("%v %+v", err, v)
	}
	revoked := f.Trust(t, 1, 2, s.Keyless(t, "ci", ciIssuer, ciSubject)+"revoked: {keys: ["+trust.Signers[1].ID()+"]}\n")
	if v, err = bundles.Verify(bundlestest.Raw(files), revoked, bundles.Seen{}, bundlestest.Now()); err != nil || v.Level() != bundles.LevelAudit {
		t.Fatalf("a revoked identity counts: %v", err)
	}
}

// TestKeylessWithoutNetwork runs TestKeyless again in a network namespace that has no routes and no devices up.
func TestKeylessWithoutNetwork(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--net", self, "-test.run", "^TestKeyless$", "-test.count=1")
	cmd.Env = []string{"TMPDIR=" + t.TempDir()} // and no home
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(string(out), "unshare:") {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Skipf("no namespaces here: %v\n%s", err, out)
	}
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// FuzzKeyless: no bytes count for a document that the identity did not sign.
func FuzzKeyless(f *testing.F) {
	s := bundlestest.NewSigstore(f, bundlestest.WithLog, bundlestest.WithTime, bundlestest.WithCT)
	trust, err := bundles.LoadTrust([]byte((&bundlestest.Fleet{}).TrustYAML(f, 1, 1, s.Keyless(f, "ci", ciIssuer, ciSubject))))
	if err != nil {
		f.Fatal(err)
	}
	fleet := &bundlestest.Fleet{}
	files := fleet.Sign(f, bundlestest.Files(), fleet.Doc(f, bundlestest.Files(), 6))
	f.Add(s.Bundle(f, []byte("another document"), ci()))
	f.Add(s.Bundle(f, files[bundles.ReleasePath], bundlestest.Signing{Issuer: ciIssuer, Subject: "a@example.com"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		all := maps.Clone(files)
		all[bundles.SignatureFile("ci")] = data
		if _, err := bundles.Verify(bundlestest.Raw(all), trust, bundles.Seen{}, bundlestest.Now()); bundles.RefusalName(err) == "" {
			t.Fatalf("%q: %v", data, err)
		}
	})
}
