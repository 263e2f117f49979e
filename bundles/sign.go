// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
	sigsig "github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"
)

// KeyPair is a new key in the files that cosign uses too: an encrypted private key and a PEM public key.
type KeyPair struct {
	Private []byte
	Public  []byte
}

// GenerateKey makes an ECDSA P-256 key, encrypted with the password as cosign does it.
func GenerateKey(password []byte) (*KeyPair, error) {
	k, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return password, nil })
	if err != nil {
		return nil, err
	}
	return &KeyPair{Private: k.PrivateBytes, Public: k.PublicBytes}, nil
}

// PublicKeyID is the id of a PEM public key: sha256 of its DER, hex.
func PublicKeyID(publicPEM []byte) (string, error) {
	_, id, err := parsePublicKey(publicPEM)
	return id, err
}

// KeySigner signs documents with one key.
type KeySigner struct {
	signer  sigsig.SignerVerifier
	public  crypto.PublicKey
	details sigsig.AlgorithmDetails
	id      string
}

// LoadKey opens an encrypted private key (cosign.key format).
func LoadKey(privatePEM, password []byte) (*KeySigner, error) {
	sv, err := cosign.LoadPrivateKey(privatePEM, password, nil)
	if err != nil {
		if strings.HasPrefix(err.Error(), "decrypt:") {
			return nil, refuse(ErrWrongPassword, "the key does not open").because(err)
		}
		return nil, refuse(ErrBadSignature, "the private key cannot be read").because(err).
			withHint("a key is made with muster keys new, or with cosign generate-key-pair")
	}
	return newKeySigner(sv)
}

// SignerFromKey signs with a private key that is in memory.
func SignerFromKey(key crypto.PrivateKey) (*KeySigner, error) {
	sv, err := sigsig.LoadDefaultSignerVerifier(key)
	if err != nil {
		return nil, refuse(ErrWeakKey, "the private key").because(err)
	}
	return newKeySigner(sv)
}

func newKeySigner(sv sigsig.SignerVerifier) (*KeySigner, error) {
	pub, err := sv.PublicKey()
	if err != nil {
		return nil, refuse(ErrBadSignature, "the private key cannot be read").because(err)
	}
	if err := checkKey(pub); err != nil {
		return nil, err
	}
	details, err := sigsig.GetDefaultAlgorithmDetails(pub)
	if err != nil {
		return nil, refuse(ErrWeakKey, "the key's algorithm").because(err)
	}
	id, err := keyID(pub)
	if err != nil {
		return nil, err
	}
	return &KeySigner{signer: sv, public: pub, details: details, id: id}, nil
}

// ID is the key's id, as in Signer.ID.
func (k *KeySigner) ID() string { return k.id }

// PublicPEM is the public key as trust.yaml and cosign take it.
func (k *KeySigner) PublicPEM() (string, error) {
	der, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// CryptoSigner is the private key for other formats than bundles (the roll's SSHSIG); nil when it has none.
func (k *KeySigner) CryptoSigner() crypto.Signer {
	s, _ := k.signer.(crypto.Signer)
	return s
}

// Sign answers a Sigstore bundle v0.3 with a messageSignature over doc. It asks no log and no clock.
func (k *KeySigner) Sign(ctx context.Context, doc []byte) ([]byte, error) {
	b, err := sign.Bundle(&sign.PlainData{Data: doc}, keypair{k}, sign.BundleOptions{Context: ctx})
	if err != nil {
		return nil, err
	}
	return protojson.Marshal(b)
}

// keypair is what the library wants a key to look like.
type keypair struct{ k *KeySigner }

func (p keypair) GetHashAlgorithm() protocommon.HashAlgorithm { return p.k.details.GetProtoHashType() }

func (p keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return p.k.details.GetSignatureAlgorithm()
}
func (p keypair) GetPublicKey() crypto.PublicKey { return p.k.public }

// GetHint is the same hint that cosign writes: it helps people, and nothing decides on it.
func (p keypair) GetHint() []byte {
	raw, err := hex.DecodeString(p.k.id)
	if err != nil {
		return nil
	}
	return []byte(base64.StdEncoding.EncodeToString(raw))
}

func (p keypair) GetKeyAlgorithm() string {
	if p.k.details.GetKeyType() == sigsig.RSA {
		return "RSA"
	}
	return "ECDSA"
}

func (p keypair) GetPublicKeyPem() (string, error) { return p.k.PublicPEM() }

func (p keypair) SignData(_ context.Context, data []byte) ([]byte, []byte, error) {
	sig, err := p.k.signer.SignMessage(strings.NewReader(string(data)))
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(data)
	return sig, sum[:], nil
}
