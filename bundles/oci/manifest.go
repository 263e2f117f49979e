// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/muster-fleet/muster/bundles"
)

// The media types of the parts of an artifact. bundles.ArtifactType and bundles.ArtifactConfigType are the whole's
// and release.json's.
const (
	layerType     = "application/vnd.muster.release.files.v1.tar+gzip"
	signatureType = "application/vnd.muster.release.signature.v1+json"
	documentsType = "application/vnd.muster.release.documents.v1"
	emptyType     = "application/vnd.oci.empty.v1+json"

	bundleType  = "application/vnd.dev.sigstore.bundle.v0.3+json"
	simpleType  = "application/vnd.dev.cosign.simplesigning.v1+json"
	statedType  = "application/vnd.dsse.envelope.v1+json"
	titleKey    = "org.opencontainers.image.title"
	previousKey = "dev.muster.previous" // the digest of the artifact that had the tag before
)

const (
	maxManifest = 256 << 10 // bytes of one manifest
	maxDocument = 1 << 20   // bytes of one signature or document
	maxParts    = 64        // signatures looked at
	maxPapers   = 512       // documents beside the release: trust files and their signatures
)

// parseManifest reads an image manifest, strictly enough that two readers cannot see two things in it.
func parseManifest(raw []byte) (*v1.Manifest, error) {
	if len(raw) > maxManifest {
		return nil, bundles.NewRefusal(bundles.ErrLimits, nil, "the manifest is larger than %d bytes", maxManifest)
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, bundles.NewRefusal(bundles.ErrMalformed, err, "the manifest")
	}
	if !json.Valid(raw) { // nothing after it
		return nil, bundles.NewRefusal(bundles.ErrMalformed, nil, "the manifest is not one JSON document")
	}
	if m.MediaType != "" && !m.MediaType.IsImage() {
		return nil, bundles.NewRefusal(bundles.ErrMalformed, nil, "the manifest is %s, not an image manifest", clip(string(m.MediaType)))
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if d.Digest.Algorithm != "sha256" || len(d.URLs) > 0 || d.Size < 0 {
			return nil, bundles.NewRefusal(bundles.ErrMalformed, nil, "a part of the manifest has no sha256, no size or lies elsewhere")
		}
	}
	return m, nil
}

// parseRelease reads the manifest of a release.
func parseRelease(raw []byte, limits Limits) (*v1.Manifest, error) {
	m, err := parseManifest(raw)
	if err != nil {
		return nil, err
	}
	// Written as muster writes it, so that whoever signs the manifest and whoever reads it see one thing.
	again, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	switch {
	case m.ArtifactType != bundles.ArtifactType || m.Config.MediaType != bundles.ArtifactConfigType:
		return nil, bundles.NewRefusal(bundles.ErrNoRelease, nil, "the artifact is %q, not a release", clip(m.ArtifactType+" "+string(m.Config.MediaType)))
	case !bytes.Equal(again, raw):
		return nil, bundles.NewRefusal(bundles.ErrNotCanonical, nil, "the manifest: its re-encoding differs from its bytes")
	case len(m.Layers) != 1 || m.Layers[0].MediaType != layerType:
		return nil, bundles.NewRefusal(bundles.ErrMalformed, nil, "a release has one layer of %s", layerType)
	case m.Config.Size > maxConfig:
		return nil, bundles.NewRefusal(bundles.ErrLimits, nil, "release.json has %d bytes, more than %d", m.Config.Size, maxConfig)
	case m.Layers[0].Size > limits.Layer:
		return nil, bundles.NewRefusal(bundles.ErrLimits, nil, "the layer has %d bytes, more than %d", m.Layers[0].Size, limits.Layer)
	}
	return m, nil
}

// maxConfig is the largest release.json that Verify reads.
const maxConfig = 4 << 20

// part is a blob that is about to be pushed.
type part struct {
	descriptor v1.Descriptor
	data       []byte
}

func newPart(mediaType string, data []byte) part {
	h, size, _ := v1.SHA256(bytes.NewReader(data)) // of memory: it cannot fail
	return part{data: data, descriptor: v1.Descriptor{MediaType: types.MediaType(mediaType), Digest: h, Size: size}}
}

func (p part) titled(title string) part {
	p.descriptor.Annotations = map[string]string{titleKey: title}
	return p
}

// rawManifest is a manifest as the registry library takes it.
type rawManifest []byte

// RawManifest implements remote.Taggable.
func (r rawManifest) RawManifest() ([]byte, error) { return r, nil }

// MediaType is OCI's.
func (r rawManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func (r rawManifest) hash() v1.Hash { return newPart("", r).descriptor.Digest }

func (r rawManifest) digest() string { return r.hash().String() }

func buildManifest(artifactType string, config part, layers []part, subject *v1.Descriptor, annotations map[string]string) (rawManifest, error) {
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: artifactType,
		Config: config.descriptor, Layers: []v1.Descriptor{}, Subject: subject, Annotations: annotations,
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.descriptor)
	}
	return json.Marshal(m)
}

// empty is the config of what is no release.
func empty() part { return newPart(emptyType, []byte("{}")) }

// releaseAnnotations are for people and for other tools; a host decides on none of them.
func releaseAnnotations(r *bundles.Release, previous bundles.Revision) map[string]string {
	out := map[string]string{
		titleKey:                            r.Name + "/" + r.Channel,
		"org.opencontainers.image.version":  fmt.Sprintf("%d.%d.0", r.Epoch, r.Sequence),
		"org.opencontainers.image.revision": r.Source.Commit,
		"org.opencontainers.image.created":  r.Issued.UTC().Format(time.RFC3339),
	}
	if r.Source.Repository != "" {
		out["org.opencontainers.image.source"] = r.Source.Repository
	}
	if previous != "" {
		out[previousKey] = string(previous)
	}
	return out
}

// clip shortens what a registry says for an error, a log or a terminal.
func clip(s string) string {
	const most = 200
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s), "?")
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
