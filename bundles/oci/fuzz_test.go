// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/muster-fleet/muster/bundles"
)

// FuzzManifest: what is taken for a release has one config, one layer, both by sha256 and within the limits.
func FuzzManifest(f *testing.F) {
	release := &bundles.Release{Name: "acme-prod", Channel: "stable", Epoch: 1, Sequence: 2}
	good, err := buildManifest(bundles.ArtifactType, newPart(bundles.ArtifactConfigType, []byte("{}")), []part{newPart(layerType, []byte("x"))}, nil, releaseAnnotations(release, ""))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`))
	f.Add([]byte(`{"config":{"digest":"sha512:00"},"layers":[{"urls":["http://x"]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseRelease(raw, DefaultLimits())
		if err != nil {
			if bundles.RefusalName(err) == "" {
				t.Fatalf("an error without a name: %v", err)
			}
			return
		}
		for _, d := range []v1.Descriptor{m.Config, m.Layers[0]} {
			if d.Digest.Algorithm != "sha256" || d.Size < 0 || d.Size > DefaultLimits().Layer || len(d.URLs) > 0 {
				t.Fatalf("%+v", d)
			}
		}
	})
}

// FuzzReferenceAndTags: no reference and no tag of a stranger breaks anything.
func FuzzReferenceAndTags(f *testing.F) {
	f.Add("oci://r.example.com/a?semver=1.x", "stable-1.2.3")
	f.Add("oci+http://[::1]:5000/a:x", "v1.0.0-rc.1+b")
	f.Fuzz(func(t *testing.T, raw, tag string) {
		ref, err := Parse(raw)
		if err != nil {
			return
		}
		if ref.within != nil {
			if got := ref.highest([]string{tag, "1.0.0"}, "stable"); got != "" && got != tag && got != "1.0.0" {
				t.Fatalf("%q out of nowhere", got)
			}
		}
	})
}
