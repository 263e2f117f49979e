// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git_test

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/git"
)

// TestPublishKeepsTheWay: a publisher carries every trust file for hosts that slept, also when the tip is a stranger's
// that has a part of them only, and goes on counting releases that earlier signers signed.
func TestPublishKeepsTheWay(t *testing.T) {
	t.Parallel()
	repo := bare(t)
	f := bundlestest.New(t, "k1", "k2", "k3")
	var sleeper *bundles.Trust
	for n := int64(1); n <= 3; n++ {
		name := fmt.Sprintf("k%d", n)
		v := bundlestest.First(1, name)
		v.Version = n
		o := bundles.PublishOptions{Content: content(name), Keys: []*bundles.KeySigner{f.Keys[name]}, Now: bundlestest.Now(), TrustBytes: f.YAML(t, v)}
		o.Trust = bundlestest.Load(t, o.TrustBytes)
		if n == 1 {
			sleeper = o.Trust
			o.Sequence = 1000 // far above what a stranger's number is taken for
		} else {
			before := fmt.Sprintf("k%d", n-1)
			if _, err := bundles.Publish(t.Context(), channel(t, repo), o); bundles.RefusalName(err) != "publish" {
				t.Fatalf("version %d without signatures: %v", n, err)
			}
			o.TrustSignatures = map[string][]byte{}
			for _, by := range []string{before, name} {
				o.TrustSignatures[by+".sigstore.json"] = bundlestest.Bundle(t, f.Keys[by], o.TrustBytes)
			}
		}
		if n == 3 { // a stranger's tip: only the newest part of the way
			raw := brought(t, source(t, git.Config{URL: repo}))
			ch := channel(t, repo)
			tip, err := ch.Refresh(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			text, err := fs.ReadFile(raw.FS, bundles.TrustFile(2))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ch.Append(t.Context(), tip, map[string][]byte{bundles.TrustFile(2): text}, "x", bundlestest.Now()); err != nil {
				t.Fatal(err)
			}
		}
		got, err := bundles.Publish(t.Context(), channel(t, repo), o)
		if err != nil || got.Sequence != 999+n {
			t.Fatalf("version %d: %+v %v", n, got, err)
		}
	}
	v, err := bundles.Verify(brought(t, source(t, git.Config{URL: repo})), sleeper, bundles.Seen{}, bundlestest.Now())
	if err != nil || v.Release().Sequence != 1002 {
		t.Fatal(err)
	}
}
