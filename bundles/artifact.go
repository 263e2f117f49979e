// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
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

// artifact is what a release that came out of a registry has besides: it is kept with the release.
type artifact struct {
	manifest   []byte
	signatures []signatureFile
}

const (
	maxArtifactManifest = 256 << 10
	simpleExt           = ".simple.json"
	statementExt        = ".statement.json"
)

// readArtifact answers nil for a release that came another way.
func readArtifact(fsys fs.FS) (*artifact, error) {
	raw, err := readBounded(fsys, ArtifactManifestPath, maxArtifactManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // most releases are no artifacts
	}
	if err != nil || len(raw) > maxArtifactManifest {
		return nil, refuse(ErrMalformed, "%s cannot be read within %d bytes", ArtifactManifestPath, maxArtifactManifest).because(err)
	}
	signatures, err := readSignatures(fsys, ArtifactSignaturesDir, signatureExt, simpleExt, statementExt)
	return &artifact{manifest: raw, signatures: signatures}, err
}

// names says whether the manifest is of a release, and its release.json is doc. Only then does a signature over the
// one count for the other. It is written as muster writes it, so that signer and host read one thing in it.
func (a *artifact) names(doc []byte) error {
	var m v1.Manifest
	if err := json.Unmarshal(a.manifest, &m); err != nil {
		return refuse(ErrMalformed, "%s", ArtifactManifestPath).because(err)
	}
	again, err := json.Marshal(m)
	switch {
	case err != nil || !bytes.Equal(again, a.manifest):
		return refuse(ErrNotCanonical, "%s: its re-encoding differs from its bytes", ArtifactManifestPath).because(err)
	case m.ArtifactType != ArtifactType || m.Config.MediaType != ArtifactConfigType:
		return refuse(ErrMalformed, "%s is of no release", ArtifactManifestPath)
	case m.Config.Digest.String() != DigestOf(doc):
		return refuse(ErrAltered, "%s names another release.json", ArtifactManifestPath)
	}
	return nil
}

// whoSignedArtifact answers the trusted signer of one of cosign's signatures over the artifact.
func (e *examination) whoSignedArtifact(f signatureFile) (*Signer, string, error) {
	if f.err != nil {
		return nil, "", asRefusal(f.err, f.name)
	}
	if err := e.v.artifact.names(e.v.doc); err != nil {
		return nil, "", err
	}
	s, how, err := e.signedArtifact(f)
	if err == nil && e.trust.RevokedKey(s.id) {
		err = refuse(ErrRevoked, "%s: the key of %s is revoked", f.name, s.Name)
	}
	return s, how + " (of the artifact)", err
}

func (e *examination) signedArtifact(f signatureFile) (*Signer, string, error) {
	switch {
	case strings.HasSuffix(f.name, simpleExt):
		return e.signedSimply(f)
	case strings.HasSuffix(f.name, statementExt):
		return nil, "", refuse(ErrDSSE, "%s is a statement, no signature", f.name)
	}
	b, err := parseArtifactBundle(f.name, f.data)
	if err != nil {
		return nil, "", err
	}
	// The library compares the digest of the manifest with the subject of the signed statement.
	return signedBy(e.verifier, b, e.v.artifact.manifest, e.trust.Signers)
}

// parseArtifactBundle accepts a DSSE bundle whose signed statement is cosign's signature of an artifact. Every other
// statement, provenance or a lint result, is by people who may have looked at the release and did not approve of it.
func parseArtifactBundle(file string, data []byte) (*sigBundle, error) {
	var b bundle.Bundle
	if err := b.UnmarshalJSON(data); err != nil {
		return nil, refuse(ErrBadSignature, "%s", file).because(err)
	}
	content, ok := b.Content.(*protobundle.Bundle_DsseEnvelope)
	if !ok || b.GetMediaType() != bundleV03 {
		return nil, refuse(ErrBadSignature, "%s is no DSSE bundle of version 0.3", file)
	}
	var statement struct {
		PredicateType string `json:"predicateType"`
	}
	if err := json.Unmarshal(content.DsseEnvelope.GetPayload(), &statement); err != nil {
		return nil, refuse(ErrBadSignature, "%s: the statement", file).because(err)
	}
	if statement.PredicateType != PredicateSign {
		return nil, refuse(ErrDSSE, "%s states %q", file, statement.PredicateType)
	}
	return &sigBundle{file: file, bundle: &b}, nil
}

// keep adds what a host keeps of the artifact.
func (a *artifact) keep(out map[string][]byte) {
	if a == nil {
		return
	}
	out[ArtifactManifestPath] = a.manifest
	for _, s := range a.signatures {
		if s.err == nil {
			out[ArtifactSignaturesDir+"/"+s.name] = s.data
		}
	}
}
