// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	sigsig "github.com/sigstore/sigstore/pkg/signature"
)

// signatureVerifier is the seam to the signature library: one bundle, one document, one signer.
type signatureVerifier interface {
	// verifyBundle answers with what evidence the signer made this bundle over exactly doc.
	verifyBundle(b *sigBundle, doc []byte, s *Signer) (string, error)
}

// sigBundle is a parsed Sigstore bundle v0.3 with a messageSignature and a public-key hint or a certificate.
type sigBundle struct {
	file   string
	bundle *bundle.Bundle
}

// keyless says that the bundle carries a certificate: no key of the trust can have made it.
func (b *sigBundle) keyless() bool { return b.bundle.VerificationMaterial.GetPublicKey() == nil }

const bundleV03 = "application/vnd.dev.sigstore.bundle.v0.3+json"

// parseSigBundle accepts one shape only. It is told apart from its relatives by name: the legacy cosign
// bundle (base64Signature) and the DSSE envelope, which the stock tools would both let pass for a blob.
func parseSigBundle(file string, data []byte) (*sigBundle, error) {
	var shape struct {
		MediaType       string          `json:"mediaType"`
		Base64Signature *string         `json:"base64Signature"`
		DSSE            json.RawMessage `json:"dsseEnvelope"`
		Message         json.RawMessage `json:"messageSignature"`
	}
	if err := json.Unmarshal(data, &shape); err != nil {
		return nil, refuse(ErrBadSignature, "%s is no JSON", file).because(err)
	}
	switch {
	case shape.Base64Signature != nil:
		return nil, refuse(ErrLegacyBundle, "%s", file)
	case shape.DSSE != nil:
		return nil, refuse(ErrDSSE, "%s", file)
	case shape.MediaType != bundleV03:
		return nil, refuse(ErrBadSignature, "%s: media type %q is not %q", file, shape.MediaType, bundleV03)
	case shape.Message == nil:
		return nil, refuse(ErrBadSignature, "%s: there is no messageSignature", file)
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(data); err != nil {
		return nil, refuse(ErrBadSignature, "%s", file).because(err)
	}
	switch b.Content.(type) {
	case *protobundle.Bundle_MessageSignature:
	case *protobundle.Bundle_DsseEnvelope:
		return nil, refuse(ErrDSSE, "%s", file)
	default:
		return nil, refuse(ErrBadSignature, "%s: there is no messageSignature", file)
	}
	return &sigBundle{file: file, bundle: &b}, nil
}

// claims reports whether the bundle says that it is over doc. It proves nothing by itself: it tells a
// document altered after signing from a signature by a stranger.
func (b *sigBundle) claims(doc []byte) bool {
	md := b.bundle.GetMessageSignature().GetMessageDigest()
	if md == nil || md.GetAlgorithm() != protocommon.HashAlgorithm_SHA2_256 {
		return true
	}
	sum := sha256.Sum256(doc)
	return bytes.Equal(md.GetDigest(), sum[:])
}

// cosignVerifier verifies with cosign's library, offline: an empty trusted root, no log and a bare key, or what
// the keyless signer's own trusted root demands.
type cosignVerifier struct{}

func (cosignVerifier) verifyBundle(b *sigBundle, doc []byte, s *Signer) (string, error) {
	if b.keyless() != (s.Keyless != nil) {
		return "", refuse(ErrBadSignature, "%s is of another sort than the signatures of %s", b.file, s.Name)
	}
	if s.Keyless != nil {
		return s.Keyless.check(b.bundle, b.file, doc)
	}
	if err := verifyKeyed(b, doc, s); err != nil {
		return "", refuse(ErrBadSignature, "%s", b.file).because(err)
	}
	return "key " + s.id[:12], nil
}

func verifyKeyed(b *sigBundle, doc []byte, s *Signer) error {
	// Both the message digest in the bundle and the signature are checked against doc by the library.
	verifier, err := sigsig.LoadDefaultVerifier(s.public)
	if err != nil {
		return err
	}
	empty, err := root.NewTrustedRoot(root.TrustedRootMediaType01, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	opts := &cosign.CheckOpts{
		SigVerifier:     verifier,
		TrustedMaterial: empty,
		IgnoreTlog:      true,
		IgnoreSCT:       true,
		Offline:         true,
		NewBundleFormat: true,
	}
	// The library takes a context and does not use it; verification is bounded by the limits on doc.
	_, err = cosign.VerifyNewBundle(context.Background(), opts, verify.WithArtifact(bytes.NewReader(doc)), b.bundle)
	return err
}

// signatureFile is one file of a directory of signatures, bounded.
type signatureFile struct {
	name string
	data []byte
	err  error
}

// readSignatures reads the signature files. A surplus file is an error of its own and never hides others.
func readSignatures(fsys fs.FS, where string, exts ...string) ([]signatureFile, error) {
	dir, err := fsys.Open(where)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, refuse(ErrBadSignature, "%s", where).because(err)
	}
	defer dir.Close()
	rd, ok := dir.(fs.ReadDirFile)
	if !ok {
		return nil, refuse(ErrPath, "%s is not a directory", where)
	}
	entries, err := rd.ReadDir(maxSignatures + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, refuse(ErrBadSignature, "%s", where).because(err)
	}
	if len(entries) > maxSignatures {
		return nil, refuse(ErrLimits, "more than %d files in %s", maxSignatures, where)
	}
	var out []signatureFile
	for _, e := range entries {
		if !slices.ContainsFunc(exts, func(ext string) bool { return strings.HasSuffix(e.Name(), ext) }) {
			continue
		}
		name := where + "/" + e.Name()
		data, err := readBounded(fsys, name, maxSignature)
		if err == nil && len(data) > maxSignature {
			err = refuse(ErrLimits, "%s is larger than %d bytes", name, maxSignature)
		}
		out = append(out, signatureFile{name: e.Name(), data: data, err: err})
	}
	return out, nil
}
