// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package bundlestest makes fleets with keys, trust files and signed releases for tests. The keys and
// signatures are real; only their holders are not.
package bundlestest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
)

// Fleet is a fleet called acme-prod with one key a signer.
type Fleet struct {
	Keys map[string]*bundles.KeySigner
}

// Commit is the source commit of every release made here.
const Commit = "1111111111111111111111111111111111111111"

// Issued is when releases are issued.
func Issued() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// Now is an hour later.
func Now() time.Time { return Issued().Add(time.Hour) }

// New makes the keys.
func New(t testing.TB, signers ...string) *Fleet {
	t.Helper()
	f := &Fleet{Keys: map[string]*bundles.KeySigner{}}
	for _, name := range signers {
		f.Keys[name] = NewKey(t)
	}
	return f
}

// NewKey makes a key that nobody trusts.
func NewKey(t testing.TB) *bundles.KeySigner {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := bundles.SignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Signer is one entry of a list of signers, in YAML.
func Signer(t testing.TB, name string, k *bundles.KeySigner) string {
	t.Helper()
	pem, err := k.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("  - name: %s\n    key: |\n      %s\n", name, strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\n      "))
}

// TrustYAML is a trust file with these thresholds; extra is appended at the top level.
func (f *Fleet) TrustYAML(t testing.TB, audit, enforce int, extra string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "fleet: acme-prod\nchannel: stable\nversion: 1\nepoch: 1\nthreshold: {audit: %d, enforce: %d}\nsigners:\n", audit, enforce)
	for _, name := range slices.Sorted(maps.Keys(f.Keys)) {
		b.WriteString(Signer(t, name, f.Keys[name]))
	}
	b.WriteString(extra)
	return b.String()
}

// Trust is TrustYAML, loaded.
func (f *Fleet) Trust(t testing.TB, audit, enforce int, extra string) *bundles.Trust {
	t.Helper()
	trust, err := bundles.LoadTrust([]byte(f.TrustYAML(t, audit, enforce, extra)))
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// Policy is a small policy of that name.
func Policy(name string) []byte {
	return []byte("apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata:\n  name: " + name +
		"\nspec:\n  nodeSelector:\n    matchLabels:\n      kubearmor.io/hostname: \"*\"\n  file:\n    matchPaths:\n      - path: /etc/" +
		name + "\n  action: Block\n")
}

// Files are the files of a small release.
func Files() map[string][]byte {
	return map[string][]byte{"a.yaml": Policy("a"), "sub/b.yaml": Policy("b")}
}

// Doc is release.json for the files.
func (f *Fleet) Doc(t testing.TB, files map[string][]byte, sequence int64) []byte {
	t.Helper()
	doc, err := bundles.BuildRelease(&bundles.Trust{Fleet: "acme-prod", Channel: "stable", Epoch: 1},
		bundles.Content{Files: files, Commit: Commit, Repository: "https://git.example.com/policy", Issued: Issued()}, sequence, false)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// Sign puts a document and the signers' bundles beside the files.
func (f *Fleet) Sign(t testing.TB, files map[string][]byte, doc []byte, signers ...string) map[string][]byte {
	t.Helper()
	out := maps.Clone(files)
	out[bundles.ReleasePath] = doc
	for _, name := range signers {
		out[bundles.SignatureFile(name)] = Bundle(t, f.Keys[name], doc)
	}
	return out
}

// Bundle signs a document.
func Bundle(t testing.TB, k *bundles.KeySigner, doc []byte) []byte {
	t.Helper()
	sig, err := k.Sign(t.Context(), doc)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// Release is a whole good release.
func (f *Fleet) Release(t testing.TB, sequence int64, signers ...string) map[string][]byte {
	t.Helper()
	return f.Sign(t, Files(), f.Doc(t, Files(), sequence), signers...)
}

// Raw is a release as a transport would bring it.
func Raw(files map[string][]byte) *bundles.Raw {
	return &bundles.Raw{Revision: "test", FS: bundles.NewMemFS(files)}
}

// Verified verifies a release that must be good.
func (f *Fleet) Verified(t testing.TB, trust *bundles.Trust, sequence int64, signers ...string) *bundles.Verified {
	t.Helper()
	v, err := bundles.Verify(Raw(f.Release(t, sequence, signers...)), trust, bundles.Seen{}, Now())
	if err != nil {
		t.Fatal(err)
	}
	return v
}
