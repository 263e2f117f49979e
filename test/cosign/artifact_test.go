// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"maps"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/oci"
	"github.com/muster-fleet/muster/test/servers"
)

// shelf is a release in a registry, signed over release.json by alice alone, so that what a host counts besides is
// cosign's.
type shelf struct {
	ref    string // host:port/repository:tag
	trust  *bundles.Trust
	digest string
}

// newShelf publishes a release. keys sign the artifact as muster does.
func newShelf(t *testing.T, referrers bool, w *workshop, keys ...*bundles.KeySigner) *shelf {
	t.Helper()
	server := httptest.NewServer(servers.Registry(referrers))
	t.Cleanup(server.Close)
	s := &shelf{ref: strings.TrimPrefix(server.URL, "http://") + "/acme/policy:stable"}
	alice := bundlestest.NewKey(t)
	f := &bundlestest.Fleet{Keys: map[string]*bundles.KeySigner{"alice": alice, "bob": w.key}}
	if w.key == nil {
		delete(f.Keys, "bob")
	}
	s.trust = f.Trust(t, 1, 2, w.trusts)
	ch, err := oci.OpenChannel(oci.ChannelConfig{Reference: "oci://" + s.ref, Channel: "stable", Keys: keys, Now: bundlestest.Now})
	if err != nil {
		t.Fatal(err)
	}
	p, err := bundles.Publish(t.Context(), ch, bundles.PublishOptions{
		Trust: s.trust, Now: bundlestest.Now(), Keys: []*bundles.KeySigner{alice},
		Content: bundles.Content{Files: bundlestest.Files(), Commit: bundlestest.Commit, Issued: bundlestest.Issued()},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.digest = string(p.Revision)
	return s
}

// byDigest is what one signs and verifies: never a tag.
func (s *shelf) byDigest() string { return strings.TrimSuffix(s.ref, ":stable") + "@" + s.digest }

func (s *shelf) fetch(t *testing.T) *bundles.Raw {
	t.Helper()
	src, err := oci.New(oci.Config{Reference: "oci://" + s.ref, Channel: "stable", Now: bundlestest.Now})
	if err != nil {
		t.Fatal(err)
	}
	rev, err := src.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := src.Fetch(t.Context(), rev)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// level is what a host makes of the release now, and again out of what it keeps of it.
func (s *shelf) level(t *testing.T) (bundles.Level, []bundles.Check) {
	t.Helper()
	v, err := bundles.Verify(s.fetch(t), s.trust, bundles.Seen{}, bundlestest.Now())
	if err != nil {
		t.Fatal(err)
	}
	again, err := v.Again(s.trust, bundles.Seen{}, bundlestest.Now())
	if err != nil || again.Level() != v.Level() {
		t.Errorf("kept: %v; level %s, then %s", err, v.Level(), again.Level())
	}
	return v.Level(), v.Checks()
}

// artifactSigns are the ways in which each tool signs an artifact with a key, offline.
func artifactSigns(name string) map[string][]string {
	if name == "v2" {
		return map[string][]string{
			"bundle": {"--tlog-upload=false", "--new-bundle-format"}, "tag .sig": {"--tlog-upload=false"},
		}
	}
	offline := []string{"--use-signing-config=false", "--tlog-upload=false"}
	return map[string][]string{"bundle": offline, "tag .sig": append(offline[:2:2], "--new-bundle-format=false")}
}

func artifactVerify(t *testing.T, c *tool, w *workshop, ref string) error {
	t.Helper()
	args := []string{"verify", "--key", "cosign.pub", "--insecure-ignore-tlog", "--trusted-root", "empty.json", "--new-bundle-format", ref}
	return c.run(t, w.dir, args...)
}

// TestArtifactSignatures: what cosign signs in a registry counts for a host, and what muster signs cosign verifies;
// with the referrers API and without.
func TestArtifactSignatures(t *testing.T) {
	t.Parallel()
	for _, c := range tools() {
		for api, referrers := range map[string]bool{"with the referrers API": true, "without it": false} {
			t.Run(c.name+" "+api, func(t *testing.T) {
				t.Parallel()
				c.build(t)
				private, public := musterKey(t)
				w := newWorkshop(t, c, private, public)
				for how, flags := range artifactSigns(c.name) {
					s := newShelf(t, referrers, w)
					if level, _ := s.level(t); level != bundles.LevelAudit {
						t.Fatalf("before bob signs: %s", level)
					}
					if err := c.run(t, w.dir, append(append([]string{"sign", "--yes", "--key", "cosign.key"}, flags...), s.byDigest())...); err != nil {
						t.Fatal(err)
					}
					if level, checks := s.level(t); level != bundles.LevelEnforce {
						t.Errorf("%s: cosign's signature does not count: %s %+v", how, level, checks)
					}
				}
				s := newShelf(t, referrers, w, w.key)
				if level, _ := s.level(t); level != bundles.LevelEnforce {
					t.Errorf("muster's own signature of the artifact does not count: %s", level)
				}
				if err := artifactVerify(t, c, w, s.byDigest()); err != nil {
					t.Errorf("cosign verify of muster's signature: %v", err)
				}
				if err := artifactVerify(t, c, w, newShelf(t, referrers, w).byDigest()); err == nil {
					t.Error("cosign verify accepts an artifact that bob did not sign")
				}
			})
		}
	}
}

// TestArtifactSignaturesThatDoNotCount: an attestation, a signature of another artifact, a manifest of another release.
func TestArtifactSignaturesThatDoNotCount(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, c *tool) {
		private, public := musterKey(t)
		w := newWorkshop(t, c, private, public)
		s := newShelf(t, true, w)
		w.write(t, "predicate.json", []byte("{}"))
		attest := []string{"attest", "--yes", "--key", "cosign.key", "--tlog-upload=false", "--new-bundle-format", "--predicate", "predicate.json", "--type", "custom"}
		if c.name == "v3" {
			attest = append(attest, "--use-signing-config=false")
		}
		if err := c.run(t, w.dir, append(attest, s.byDigest())...); err != nil {
			t.Fatal(err)
		}
		level, checks := s.level(t)
		if level != bundles.LevelAudit || !says(checks, "not counted: dsse: ") {
			t.Errorf("an attestation: %s %+v", level, checks)
		}
		// It is no signature; where the trust asks for such a statement by bob, it is one.
		s.attested(t, w, "")
		s.attestedBy(t, bundlestest.Signer(t, "linter", bundlestest.NewKey(t)), "attestation")

		signed := newShelf(t, true, w, w.key)
		raw, other := signed.fetch(t), s.fetch(t)
		files, err := bundles.ReadRelease(t.Context(), raw.FS)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := bundles.ReadRelease(t.Context(), other.FS)
		if err != nil {
			t.Fatal(err)
		}
		// Signatures of one artifact beside another one's manifest and release.json.
		mixed := maps.Clone(foreign)
		mixed[bundles.ArtifactManifestPath] = append([]byte(nil), files[bundles.ArtifactManifestPath]...)
		for name, data := range files {
			if strings.HasPrefix(name, bundles.ArtifactSignaturesDir+"/") {
				mixed[name] = data
			}
		}
		mixed[bundles.ReleasePath] = foreign[bundles.ReleasePath]
		v, err := bundles.Verify(bundlestest.Raw(mixed), s.trust, bundles.Seen{}, bundlestest.Now())
		if err != nil || v.Level() != bundles.LevelEnforce {
			t.Errorf("the same release.json in two artifacts: %v", err) // its digest is the same: it counts
		}
		mixed[bundles.ArtifactManifestPath] = foreign[bundles.ArtifactManifestPath][:len(foreign[bundles.ArtifactManifestPath])-1]
		if v, err := bundles.Verify(bundlestest.Raw(mixed), s.trust, bundles.Seen{}, bundlestest.Now()); err != nil || v.Level() != bundles.LevelAudit {
			t.Errorf("a manifest that was cut: %v", err)
		}
	})
}

// attested asks for the statement that cosign attest makes of type custom, by the workshop's key.
func (s *shelf) attested(t *testing.T, w *workshop, want string) {
	t.Helper()
	s.attestedBy(t, bundlestest.Signer(t, "linter", w.key), want)
}

// attestedBy asks for it by this signer.
func (s *shelf) attestedBy(t *testing.T, signer, want string) {
	t.Helper()
	asking := *s.trust
	extra := "attestations:\n- type: https://cosign.sigstore.dev/attestation/v1\n  signers:\n" + signer
	asking.Attestations = bundlestest.Load(t, []byte((&bundlestest.Fleet{Keys: map[string]*bundles.KeySigner{"x": bundlestest.NewKey(t)}}).TrustYAML(t, 1, 1, extra))).Attestations
	v, err := bundles.Verify(s.fetch(t), &asking, bundles.Seen{}, bundlestest.Now())
	if got := bundles.RefusalName(err); got != want {
		t.Errorf("a statement beside the artifact: %q (%v), wanted %q", got, err, want)
	}
	if err != nil {
		return
	}
	if _, err := v.Again(&asking, bundles.Seen{}, bundlestest.Now()); err != nil {
		t.Errorf("kept: %v", err)
	}
}

// TestArtifactSignaturesByCertificate: the stock tools ask a private certificate and timestamp authority and sign the
// artifact, in either form; a host that trusts the identity counts it, and one that trusts another does not.
func TestArtifactSignaturesByCertificate(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, c *tool) {
		sigstore := bundlestest.NewSigstore(t, bundlestest.WithTime)
		by := bundlestest.Signing{Issuer: issuer, Subject: subject, At: bundlestest.Issued()}
		base := sigstore.Serve(t, by)
		w := newWorkshop(t, c, nil, nil)
		w.write(t, "root.json", []byte(sigstore.TrustedRoot(t)))
		w.write(t, "config.json", []byte(sigstore.SigningConfig(t, by)))
		simply := []string{"--fulcio-url", base, "--timestamp-server-url", base + "/api/v1/timestamp", "--tlog-upload=false", "--insecure-skip-verify"}
		bundled := []string{"--signing-config", "config.json", "--trusted-root", "root.json"}
		if c.name == "v3" {
			simply = append(simply, "--use-signing-config=false", "--new-bundle-format=false")
		} else {
			bundled = append(bundled, "--new-bundle-format")
		}
		for how, flags := range map[string][]string{"tag .sig": simply, "bundle": bundled} {
			for who, want := range map[string]bundles.Level{subject: bundles.LevelEnforce, subject + "x": bundles.LevelAudit} {
				w.trusts = sigstore.Keyless(t, "ci", issuer, who)
				s := newShelf(t, true, w)
				args := append([]string{"sign", "--yes", "--identity-token", token()}, flags...)
				if err := c.run(t, w.dir, append(args, s.byDigest())...); err != nil {
					t.Fatal(err)
				}
				if level, checks := s.level(t); level != want {
					t.Errorf("%s, host trusts %s: %s %+v", how, who, level, checks)
				}
			}
		}
	})
}

func says(checks []bundles.Check, what string) bool {
	for _, c := range checks {
		if strings.Contains(c.Evidence, what) {
			return true
		}
	}
	return false
}
