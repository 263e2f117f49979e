// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"
)

// A release that came as an OCI artifact carries, beside release.json, the artifact's manifest and the signatures
// that cosign makes over it. The manifest names release.json by its digest, so who signed the one signed the other.
const (
	ArtifactDir           = ".muster/oci"
	ArtifactManifestPath  = ".muster/oci/manifest.json"
	ArtifactSignaturesDir = ".muster/oci/signatures"
)

// The types by which an artifact is known to be a release.
const (
	ArtifactType       = "application/vnd.muster.release.v1+json"
	ArtifactConfigType = "application/vnd.muster.release.config.v1+json"
)

// SimpleSignature is one signature of cosign's older kind (the .sig tag), as a transport hands it over.
type SimpleSignature struct {
	Payload     []byte `json:"payload"`
	Signature   string `json:"signature"`
	Certificate string `json:"certificate,omitempty"`
}

// PredicateSign is what cosign's signature of an artifact predicates.
const PredicateSign = "https://sigstore.dev/cosign/sign/v1"

// SignArtifact answers a Sigstore bundle that stock cosign verifies for the artifact with this manifest digest.
func (k *KeySigner) SignArtifact(ctx context.Context, manifestDigest string) ([]byte, error) {
	sum := strings.TrimPrefix(manifestDigest, "sha256:")
	if _, err := hex.DecodeString(sum); err != nil {
		return nil, refuse(ErrMalformed, "%q is no digest", manifestDigest)
	}
	statement, err := json.Marshal(map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       []any{map[string]any{"digest": map[string]string{"sha256": sum}}},
		"predicateType": PredicateSign,
		"predicate":     map[string]any{},
	})
	if err != nil {
		return nil, err
	}
	content := &sign.DSSEData{Data: statement, PayloadType: "application/vnd.in-toto+json"}
	b, err := sign.Bundle(content, keypair{k}, sign.BundleOptions{Context: ctx})
	if err != nil {
		return nil, err
	}
	return protojson.Marshal(b)
}
