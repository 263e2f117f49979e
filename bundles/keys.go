// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"strings"
)

// parsePublicKey reads exactly one PEM public key of a kind that both stock cosign versions sign and verify
// with, and answers it with its id (sha256 of the DER, hex).
func parsePublicKey(data []byte) (crypto.PublicKey, string, error) {
	if strings.TrimSpace(string(data)) == "" {
		return nil, "", refuse(ErrTrust, "the key is empty")
	}
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, "", refuse(ErrTrust, "the key is not PEM")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return nil, "", refuse(ErrTrust, "there is more than one PEM block")
	}
	if block.Type != "PUBLIC KEY" {
		return nil, "", refuse(ErrTrust, "a PEM block of type %q is not a public key", block.Type)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, "", refuse(ErrTrust, "the key cannot be read").because(err)
	}
	if err := checkKey(pub); err != nil {
		return nil, "", err
	}
	id, err := keyID(pub)
	return pub, id, err
}

// keyID is computed over our own encoding, so that two encodings of one key are one signer.
func keyID(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", refuse(ErrWeakKey, "the key cannot be encoded").because(err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// checkKey permits ECDSA P-256 and RSA from 3072 bits: with the others cosign v2 or v3 fails.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return refuse(ErrWeakKey, "ECDSA %s is not accepted", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits != 3072 && bits != 4096 {
			return refuse(ErrWeakKey, "RSA of %d bits is not accepted (3072 or 4096 are)", bits)
		}
	case ed25519.PublicKey:
		return refuse(ErrWeakKey, "Ed25519 is not accepted: stock cosign cannot sign or verify bundles with it")
	default:
		return refuse(ErrWeakKey, "a key of type %T is not accepted", pub)
	}
	return nil
}
