// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	forEach(t, func(t *testing.T, c *tool) {
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

// TestKeylessSignedByCosign: the stock tool asks a private certificate and timestamp authority, and a host believes it.
func TestKeylessSignedByCosign(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, c *tool) {
		s := bundlestest.NewSigstore(t, bundlestest.WithTime)
		w := newWorkshop(t, c, nil, nil)
		w.write(t, "root.json", []byte(s.TrustedRoot(t)))
		w.write(t, "config.json", []byte(s.SigningConfig(t, bundlestest.Signing{Issuer: issuer, Subject: subject, At: bundlestest.Issued()})))
		if err := c.run(t, w.dir, append(c.keylessArgs(w.dir), "--bundle", "bundle.json", "release.json")...); err != nil {
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

// token is an identity token that nobody checks.
func token() string {
	claims := fmt.Sprintf(`{"iss":%q,"sub":%q,"aud":"sigstore","exp":%d,"iat":%d}`, issuer, subject, time.Now().Add(time.Hour).Unix(), time.Now().Unix())
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + part([]byte(claims)) + "." + part([]byte("nobody checks"))
}

// keylessArgs sign with what the workshop's configuration and trusted root lead to.
func (c *tool) keylessArgs(dir string) []string {
	args := []string{"sign-blob", "--yes", "--signing-config", filepath.Join(dir, "config.json"), "--trusted-root", filepath.Join(dir, "root.json"), "--identity-token", token()}
	if c.name == "v2" {
		args = append(args, "--new-bundle-format")
	}
	return args
}

// TestPublishKeyless: the whole way without a key file, from a policy repository to a host that accepts the release.
func TestPublishKeyless(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, c *tool) {
		s := bundlestest.NewSigstore(t, bundlestest.WithTime)
		w := newWorkshop(t, c, nil, nil)
		muster := filepath.Join(w.dir, "muster")
		goOutput(t, "../..", "build", "-o", muster, "./cmd/muster")
		w.write(t, "root.json", []byte(s.TrustedRoot(t)))
		w.write(t, "config.json", []byte(s.SigningConfig(t, bundlestest.Signing{Issuer: issuer, Subject: subject, At: bundlestest.Issued()})))
		repo := filepath.Join(w.dir, "pol")
		call := func(dir, name string, args ...string) string {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), name, args...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "HOME="+w.dir, "TUF_ROOT="+filepath.Join(w.dir, "tuf"), "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a",
				"GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "https_proxy=http://127.0.0.1:1")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s %v: %v\n%s", name, args, err, out)
			}
			return string(out)
		}
		call(w.dir, "git", "init", "-q", "--bare", "policy.git")
		call(w.dir, "git", "init", "-q", "pol")
		call(repo, "git", "remote", "add", "origin", "../policy.git")
		call(repo, muster, "init", "--fleet", "acme-prod")
		w.write(t, "pol/trust.yaml", []byte((&bundlestest.Fleet{}).TrustYAML(t, 1, 1, s.Keyless(t, "ci", issuer, subject))))
		call(repo, "git", "add", "-A")
		call(repo, "git", "commit", "-qm", "start")
		command := c.path + " '" + strings.Join(c.keylessArgs(w.dir), "' '") + `' --bundle "$MUSTER_BUNDLE" "$MUSTER_DOCUMENT"`
		if out := call(repo, muster, "publish", "--sign-command", command); !strings.Contains(out, "signed by ci") {
			t.Fatal(out)
		}
		out := call(repo, muster, "verify", "../policy.git", "--trust", "trust.yaml")
		if !strings.Contains(out, "accepted at level enforce") || !strings.Contains(out, "witnessed by TimestampAuthority") {
			t.Fatal(out)
		}
	})
}
