// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// byLog is a private deployment with a log, and the flags that lead the stock tool to it and to cosign's older kind.
func (c *tool) byLog(t *testing.T) (s *bundlestest.Sigstore, w *workshop, flags []string) {
	t.Helper()
	s = bundlestest.NewSigstore(t, bundlestest.WithLog)
	base := s.Serve(t, bundlestest.Signing{Issuer: issuer, Subject: subject, At: bundlestest.Issued()})
	w = newWorkshop(t, c, nil, nil)
	w.write(t, "root.json", []byte(s.TrustedRoot(t)))
	w.write(t, "log.pub", s.LogKey(t))
	c.logKey = filepath.Join(w.dir, "log.pub")
	flags = []string{"--yes", "--fulcio-url", base, "--rekor-url", base, "--insecure-skip-verify", "--identity-token", token()}
	return s, w, append(flags, c.older()...)
}

// older are the flags of cosign's older kind.
func (c *tool) older() []string {
	if c.name == "v3" {
		return []string{"--use-signing-config=false", "--new-bundle-format=false"}
	}
	return nil
}

// TestPromiseOfTheLog: the stock tools sign by a certificate, log it and put what the log promised into the annotations of
// the tag .sig. A host that trusts log and identity counts it, and says when it was logged; the stock tool agrees.
func TestPromiseOfTheLog(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, c *tool) {
		sigstore, w, flags := c.byLog(t)
		others := bundlestest.NewSigstore(t, bundlestest.WithLog)
		for _, h := range []struct {
			host, trusts string
			want         bundles.Level
			says         string
		}{
			{"log and identity", sigstore.Keyless(t, "ci", issuer, subject), bundles.LevelEnforce, "witnessed by Tlog at 2026-03-01T12:05:00Z"},
			{"another identity", sigstore.Keyless(t, "ci", issuer, subject+"x"), bundles.LevelAudit, "not counted: wrong-identity: "},
			{"another log", others.Keyless(t, "ci", issuer, subject), bundles.LevelAudit, "not counted: not-logged: "},
		} {
			w.trusts = h.trusts
			s := newShelf(t, true, w)
			if err := c.run(t, w.dir, slices.Concat([]string{"sign"}, flags, []string{s.byDigest()})...); err != nil {
				t.Fatal(err)
			}
			if level, checks := s.level(t); level != h.want || !says(checks, h.says) {
				t.Errorf("a host that trusts %s: %s %+v", h.host, level, checks)
			}
			verify := []string{
				"verify", "--trusted-root", "root.json", "--certificate-identity", subject, "--certificate-oidc-issuer", issuer,
				"--insecure-ignore-sct", "--offline", s.byDigest(),
			}
			if c.name == "v3" {
				verify = append(verify, "--new-bundle-format=false")
			}
			if err := c.run(t, w.dir, verify...); err != nil {
				t.Errorf("cosign itself: %v", err)
			}
		}
	})
}

// TestStatementAtTheTag: what cosign attest puts at the tag .att counts for a gate that asks for it, by a key or by a
// certificate in a log, and never as a signature; with the referrers API and without.
func TestStatementAtTheTag(t *testing.T) {
	t.Parallel()
	for _, c := range tools() {
		for api, referrers := range map[string]bool{"with the referrers API": true, "without it": false} {
			t.Run(c.name+" "+api, func(t *testing.T) {
				t.Parallel()
				c.build(t)
				private, public := musterKey(t)
				w := newWorkshop(t, c, private, public)
				w.write(t, "predicate.json", []byte("{}"))
				attest := []string{"attest", "--yes", "--tlog-upload=false", "--key", "cosign.key", "--predicate", "predicate.json", "--type", "custom"}
				s := newShelf(t, referrers, w)
				s.attested(t, w, "attestation")
				if err := c.run(t, w.dir, slices.Concat(attest, c.older(), []string{s.byDigest()})...); err != nil {
					t.Fatal(err)
				}
				if level, checks := s.level(t); level != bundles.LevelAudit || !says(checks, "not counted: dsse: ") {
					t.Errorf("a statement as a signature: %s %+v", level, checks)
				}
				s.attested(t, w, "")
				s.attestedBy(t, bundlestest.Signer(t, "linter", bundlestest.NewKey(t)), "attestation")
			})
		}
		t.Run(c.name+" in a log", func(t *testing.T) {
			t.Parallel()
			c.build(t)
			sigstore, w, flags := c.byLog(t)
			w.write(t, "predicate.json", []byte("{}"))
			w.trusts = sigstore.Keyless(t, "ci", issuer, subject)
			s := newShelf(t, true, w)
			if err := c.run(t, w.dir, slices.Concat([]string{"attest", "--predicate", "predicate.json", "--type", "custom"}, flags, []string{s.byDigest()})...); err != nil {
				t.Fatal(err)
			}
			s.attestedBy(t, sigstore.Keyless(t, "linter", issuer, subject), "")
			s.attestedBy(t, sigstore.Keyless(t, "linter", issuer, subject+"x"), "attestation")
			s.attestedBy(t, bundlestest.NewSigstore(t, bundlestest.WithLog).Keyless(t, "linter", issuer, subject), "attestation")
		})
	}
}
