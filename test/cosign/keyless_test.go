// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

const (
	issuer  = "https://issuer.acme.example"
	subject = "https://git.acme.example/policy/.ci/publish.yml@refs/heads/main"
)

// keylessHost verifies the document as a host that trusts this identity of the deployment does.
func (w *workshop) keylessHost(t *testing.T, s *bundlestest.Sigstore, bundle []byte) error {
	t.Helper()
	trust, err := bundles.LoadTrust([]byte((&bundlestest.Fleet{}).TrustYAML(t, 1, 1, s.Keyless(t, "ci", issuer, subject))))
	if err != nil {
		t.Fatal(err)
	}
	files := (&bundlestest.Fleet{}).Sign(t, bundlestest.Files(), w.doc)
	files[bundles.SignatureFile("ci")] = bundle
	_, err = bundles.Verify(bundlestest.Raw(files), trust, bundles.Seen{}, bundlestest.Now())
	return err
}

func (c *tool) verifyKeyless(t *testing.T, dir, who string, more ...string) error {
	t.Helper()
	args := []string{"verify-blob", "--trusted-root", "root.json", "--certificate-identity", who, "--certificate-oidc-issuer", issuer, "--bundle", "bundle.json"}
	if c.name == "v2" {
		args = append(args, "--new-bundle-format")
	}
	return c.run(t, dir, append(append(args, more...), "release.json")...)
}

// TestKeylessBothDirections: what a private deployment signed, by the stock tools or in memory, is verified by
// either, and neither takes another identity.
func TestKeylessBothDirections(t *testing.T) {
	t.Parallel()
	for _, c := range tools() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.build(t)
			for name, parts := range map[string][]bundlestest.Part{
				"log and certificate log": {bundlestest.WithLog, bundlestest.WithCT},
				"timestamps":              {bundlestest.WithTime},
			} {
				s := bundlestest.NewSigstore(t, parts...)
				w := newWorkshop(t, c, nil, nil)
				w.write(t, "root.json", []byte(s.TrustedRoot(t)))
				w.write(t, "bundle.json", s.Bundle(t, w.doc, bundlestest.Signing{Issuer: issuer, Subject: subject}))
				flags := []string{}
				if len(parts) == 1 {
					flags = []string{"--insecure-ignore-tlog", "--insecure-ignore-sct", "--use-signed-timestamps"}
				}
				if err := w.keylessHost(t, s, w.read(t, "bundle.json")); err != nil {
					t.Errorf("%s: muster: %v", name, err)
				}
				if err := c.verifyKeyless(t, w.dir, subject, flags...); err != nil {
					t.Errorf("%s: cosign: %v", name, err)
				}
				if err := c.verifyKeyless(t, w.dir, subject+"x", flags...); err == nil {
					t.Errorf("%s: cosign takes another subject", name)
				}
			}
		})
	}
}

// TestKeylessSignedByCosign: the stock tool asks a private certificate and timestamp authority, and a host believes it.
func TestKeylessSignedByCosign(t *testing.T) {
	t.Parallel()
	for _, c := range tools() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.build(t)
			s := bundlestest.NewSigstore(t, bundlestest.WithTime)
			w := newWorkshop(t, c, nil, nil)
			w.write(t, "root.json", []byte(s.TrustedRoot(t)))
			w.write(t, "config.json", []byte(s.SigningConfig(t, bundlestest.Signing{Issuer: issuer, Subject: subject, At: bundlestest.Issued()})))
			claims := fmt.Sprintf(`{"iss":%q,"sub":%q,"aud":"sigstore","exp":%d,"iat":%d}`, issuer, subject, time.Now().Add(time.Hour).Unix(), time.Now().Unix())
			part := base64.RawURLEncoding.EncodeToString
			token := part([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + part([]byte(claims)) + "." + part([]byte("nobody checks"))
			args := []string{"sign-blob", "--yes", "--signing-config", "config.json", "--trusted-root", "root.json", "--identity-token", token, "--bundle", "bundle.json"}
			if c.name == "v2" {
				args = append(args, "--new-bundle-format")
			}
			if err := c.run(t, w.dir, append(args, "release.json")...); err != nil {
				t.Fatal(err)
			}
			theirs := w.read(t, "bundle.json")
			if err := w.keylessHost(t, s, theirs); err != nil {
				t.Fatalf("%v\n%s", err, theirs)
			}
			if err := w.keylessHost(t, bundlestest.NewSigstore(t, bundlestest.WithTime), theirs); bundles.RefusalName(err) == "" {
				t.Fatalf("another root: %v", err)
			}
		})
	}
}
