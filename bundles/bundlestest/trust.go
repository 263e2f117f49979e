// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundlestest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/bundles"
)

// TrustFile is one version of a trust file with its keys by name.
type TrustFile struct {
	Version, Epoch        int64
	Audit, Enforce, Agree int // thresholds; Agree is threshold.trust
	Signers               []string
	Fleet, Channel, Extra string
}

// YAML writes it; the fleet has the keys.
func (f *Fleet) YAML(t testing.TB, v TrustFile) []byte {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "fleet: %s\nchannel: %s\nversion: %d\nepoch: %d\nthreshold: {audit: %d, enforce: %d, trust: %d}\nsigners:\n",
		v.Fleet, v.Channel, v.Version, v.Epoch, v.Audit, v.Enforce, v.Agree)
	for _, name := range v.Signers {
		b.WriteString(Signer(t, name, f.Keys[name]))
	}
	return []byte(b.String() + v.Extra)
}

// First is version 1 of a trust file in which all these signers must agree on the next.
func First(agree int, signers ...string) TrustFile {
	return TrustFile{Version: 1, Epoch: 1, Audit: 1, Enforce: 1, Agree: agree, Signers: signers, Fleet: "acme-prod", Channel: "stable"}
}

// Load loads a trust file.
func Load(t testing.TB, text []byte) *bundles.Trust {
	t.Helper()
	trust, err := bundles.LoadTrust(text)
	must(t, err)
	return trust
}

// Succession puts a version of the trust file and these signers' bundles over it into a release.
func (f *Fleet) Succession(t testing.TB, files map[string][]byte, v TrustFile, by ...string) {
	t.Helper()
	text := f.YAML(t, v)
	files[bundles.TrustFile(v.Version)] = text
	for _, name := range by {
		files[bundles.TrustSignatureFile(v.Version, name)] = Bundle(t, f.Keys[name], text)
	}
}

// ReleaseIn is a release of these files in an epoch.
func (f *Fleet) ReleaseIn(t testing.TB, epoch, sequence int64, files map[string][]byte, by ...string) map[string][]byte {
	t.Helper()
	doc, err := bundles.BuildRelease(&bundles.Trust{Fleet: "acme-prod", Channel: "stable", Epoch: epoch},
		bundles.Content{Files: files, Commit: Commit, Issued: Issued()}, sequence, false)
	must(t, err)
	return f.Sign(t, files, doc, by...)
}
