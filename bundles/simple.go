// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"

	cosignbundle "github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	sigsig "github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"
)

// SimpleSignature is one signature of cosign's older kind (the .sig tag), as a transport hands it over: the layer, and
// what its annotations say.
type SimpleSignature struct {
	Payload   []byte `json:"payload"`
	Signature string `json:"signature"`
	SimpleMaterial
}

// SimpleStatement is one statement as cosign's older kind has it (the .att tag): the layer, and what its annotations say.
type SimpleStatement struct {
	Envelope []byte `json:"envelope"` // DSSE
	SimpleMaterial
}

// SimpleMaterial is what annotations say of who signed and when; nothing of it where a key signed.
type SimpleMaterial struct {
	Certificate string `json:"certificate,omitempty"` // PEM; the chain above it is the trusted root's
	Log         string `json:"log,omitempty"`         // JSON: what a transparency log promised
	Timestamp   string `json:"timestamp,omitempty"`   // JSON: what a timestamp authority signed
}

// signedSimply checks a signature of cosign's older kind, over a payload that names the manifest.
func (e *examination) signedSimply(f signatureFile) (*Signer, string, error) {
	var s SimpleSignature
	if err := json.Unmarshal(f.data, &s); err != nil {
		return nil, "", refuse(ErrBadSignature, "%s", f.name).because(err)
	}
	signature, err := base64.StdEncoding.DecodeString(s.Signature)
	if err != nil {
		return nil, "", refuse(ErrBadSignature, "%s", f.name).because(err)
	}
	var signer *Signer
	var how string
	if s.Certificate != "" {
		b, err := s.asBundle(signature)
		if err != nil {
			return nil, "", refuse(ErrBadSignature, "%s", f.name).because(err)
		}
		if signer, how, err = signedBy(e.verifier, &sigBundle{file: f.name, bundle: b}, s.Payload, e.trust.Signers); err != nil {
			return nil, "", err
		}
	} else {
		if signer = e.keyThatSigned(signature, s.Payload); signer == nil {
			return nil, "", refuse(ErrBadSignature, "%s verifies with no trusted key", f.name)
		}
		how = "key " + signer.id[:12]
	}
	return signer, how, s.names(f.name, e.v.artifact.manifest)
}

// names says whether the payload is about this manifest. It is parsed only after its signature was checked: these are
// the signer's own words.
func (s *SimpleSignature) names(file string, manifest []byte) error {
	var payload struct {
		Critical struct {
			Type  string `json:"type"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(s.Payload, &payload); err != nil {
		return refuse(ErrBadSignature, "%s", file).because(err)
	}
	if payload.Critical.Type != "cosign container image signature" || payload.Critical.Image.Digest != DigestOf(manifest) {
		return refuse(ErrAltered, "%s is over another artifact", file)
	}
	return nil
}

func (e *examination) keyThatSigned(signature, payload []byte) *Signer {
	for i := range e.trust.Signers {
		s := &e.trust.Signers[i]
		if s.public == nil {
			continue
		}
		verifier, err := sigsig.LoadDefaultVerifier(s.public)
		if err == nil && verifier.VerifySignature(bytes.NewReader(signature), bytes.NewReader(payload)) == nil {
			return s
		}
	}
	return nil
}

// bundleV01 is the bundle that the log's promise of inclusion is enough for; later ones need its proof, which the older
// kind of signature does not carry.
const bundleV01 = "application/vnd.dev.sigstore.bundle+json;version=0.1"

// asBundle says in one bundle what the annotations say one by one, so that there is one way in which certificates, logs
// and timestamps are checked. It asserts nothing: whatever stands in it is checked like any other bundle.
func (s *SimpleSignature) asBundle(signature []byte) (*bundle.Bundle, error) {
	material, err := s.material()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(s.Payload)
	return bundle.NewBundle(&protobundle.Bundle{
		MediaType: bundleV01, VerificationMaterial: material,
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]}, Signature: signature,
		}},
	})
}

// asBundle is the same for a statement, which a key may have signed as well.
func (s *SimpleStatement) asBundle() (*bundle.Bundle, error) {
	var envelope protodsse.Envelope
	if err := protojson.Unmarshal(s.Envelope, &envelope); err != nil {
		return nil, err
	}
	out := &protobundle.Bundle{MediaType: bundleV03, Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &envelope}}
	if s.Certificate == "" {
		out.VerificationMaterial = &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}}
		return bundle.NewBundle(out)
	}
	var err error
	out.MediaType = bundleV01
	if out.VerificationMaterial, err = s.material(); err != nil {
		return nil, err
	}
	return bundle.NewBundle(out)
}

// material is the certificate and who witnessed it.
func (s *SimpleMaterial) material() (*protobundle.VerificationMaterial, error) {
	block, rest := pem.Decode([]byte(s.Certificate))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("the certificate is not one PEM block")
	}
	material := &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_X509CertificateChain{
		X509CertificateChain: &protocommon.X509CertificateChain{Certificates: []*protocommon.X509Certificate{{RawBytes: block.Bytes}}},
	}}
	if s.Log != "" {
		entry, err := logEntry(s.Log)
		if err != nil {
			return nil, err
		}
		material.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	if s.Timestamp != "" {
		var stamp cosignbundle.RFC3161Timestamp
		if err := json.Unmarshal([]byte(s.Timestamp), &stamp); err != nil {
			return nil, err
		}
		material.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp.SignedRFC3161Timestamp}},
		}
	}
	return material, nil
}

// logEntry is a log's promise as an entry of a bundle.
func logEntry(text string) (*protorekor.TransparencyLogEntry, error) {
	var promise cosignbundle.RekorBundle
	if err := json.Unmarshal([]byte(text), &promise); err != nil {
		return nil, err
	}
	encoded, ok := promise.Payload.Body.(string)
	if !ok {
		return nil, errors.New("the log's entry has no body")
	}
	body, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(strings.ToLower(promise.Payload.LogID))
	if err != nil {
		return nil, err
	}
	var kind struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.Unmarshal(body, &kind); err != nil {
		return nil, err
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: promise.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id}, IntegratedTime: promise.Payload.IntegratedTime,
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: promise.SignedEntryTimestamp},
		CanonicalizedBody: body,
	}, nil
}
