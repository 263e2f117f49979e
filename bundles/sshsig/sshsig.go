// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package sshsig is OpenSSH's detached signatures (PROTOCOL.sshsig) and lists of allowed signers, read strictly.
package sshsig

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Errors of signatures.
var (
	ErrMalformed = errors.New("not an SSH signature")
	ErrNamespace = errors.New("signature is for another purpose")
	ErrAlgorithm = errors.New("signature algorithm is not accepted")
	ErrInvalid   = errors.New("signature does not match")
)

// PROTOCOL.sshsig of OpenSSH.
const (
	sshsigMagic   = "SSHSIG"
	sshsigVersion = 1
	sshsigBegin   = "-----BEGIN SSH SIGNATURE-----\n"
	sshsigEnd     = "-----END SSH SIGNATURE-----"
	sshsigLine    = 70 // characters a line, as ssh-keygen writes them
	maxSignature  = 16 << 10
	minRSABits    = 3072
)

// sshsigBlob follows the magic and the version.
type sshsigBlob struct {
	PublicKey []byte
	Namespace string
	Reserved  string
	HashAlg   string
	Signature []byte
}

// sshsigSigned is what the key signs, after the magic.
type sshsigSigned struct {
	Namespace string
	Reserved  string
	HashAlg   string
	Hash      []byte
}

// Sign makes a detached, armored SSHSIG over message, as "ssh-keygen -Y sign -n NAMESPACE" does.
func Sign(signer ssh.Signer, namespace string, message []byte) ([]byte, error) {
	if namespace == "" {
		return nil, fmt.Errorf("%w: empty namespace", ErrNamespace)
	}
	if err := AcceptableKey(signer.PublicKey()); err != nil {
		return nil, err
	}
	const hashAlg = "sha512"
	data, err := signedData(namespace, hashAlg, message)
	if err != nil {
		return nil, err
	}
	sig, err := signWith(signer, data)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	blob := ssh.Marshal(sshsigBlob{
		PublicKey: signer.PublicKey().Marshal(),
		Namespace: namespace,
		HashAlg:   hashAlg,
		Signature: ssh.Marshal(*sig),
	})
	return armor(append([]byte(sshsigMagic), append([]byte{0, 0, 0, sshsigVersion}, blob...)...)), nil
}

// signWith avoids ssh-rsa's SHA-1, which SSHSIG forbids.
func signWith(signer ssh.Signer, data []byte) (*ssh.Signature, error) {
	if a, ok := signer.(ssh.AlgorithmSigner); ok && PlainKey(signer.PublicKey()).Type() == ssh.KeyAlgoRSA {
		return a.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
	}
	return signer.Sign(rand.Reader, data)
}

// Verify checks an armored SSHSIG over message and answers the key that made it: a plain key, or an
// *ssh.Certificate whose own signature is not judged here (AllowedSigners does that).
func Verify(armored []byte, namespace string, message []byte) (ssh.PublicKey, error) {
	raw, err := unarmor(armored)
	if err != nil {
		return nil, err
	}
	head := append([]byte(sshsigMagic), 0, 0, 0, sshsigVersion)
	rest, ok := bytes.CutPrefix(raw, head)
	if !ok {
		return nil, fmt.Errorf("%w: other magic or version", ErrMalformed)
	}
	var blob sshsigBlob
	if err := ssh.Unmarshal(rest, &blob); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, printable(err.Error(), 120))
	}
	if namespace == "" || blob.Namespace != namespace {
		return nil, fmt.Errorf("%w: %q, expected %q", ErrNamespace, printable(blob.Namespace, 64), namespace)
	}
	key, err := ssh.ParsePublicKey(blob.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("%w: public key", ErrMalformed)
	}
	if err := AcceptableKey(key); err != nil {
		return nil, err
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal(blob.Signature, &sig); err != nil || len(sig.Rest) > 0 {
		return nil, fmt.Errorf("%w: signature blob", ErrMalformed)
	}
	if !formatFits(PlainKey(key), sig.Format) {
		return nil, fmt.Errorf("%w: %q", ErrAlgorithm, printable(sig.Format, 64))
	}
	data, err := signedData(blob.Namespace, blob.HashAlg, message)
	if err != nil {
		return nil, err
	}
	if err := PlainKey(key).Verify(data, &sig); err != nil {
		return nil, ErrInvalid
	}
	return key, nil
}

func signedData(namespace, hashAlg string, message []byte) ([]byte, error) {
	var sum []byte
	switch hashAlg {
	case "sha512":
		h := sha512.Sum512(message)
		sum = h[:]
	case "sha256":
		h := sha256.Sum256(message)
		sum = h[:]
	default:
		return nil, fmt.Errorf("%w: hash %q", ErrAlgorithm, printable(hashAlg, 32))
	}
	signed := ssh.Marshal(sshsigSigned{Namespace: namespace, HashAlg: hashAlg, Hash: sum})
	return append([]byte(sshsigMagic), signed...), nil
}

// AcceptableKey holds the constant set of key types. DSA, short RSA and security keys (whose flags would need
// rules of their own) are left out.
func AcceptableKey(key ssh.PublicKey) error {
	plain := PlainKey(key)
	switch plain.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return nil
	case ssh.KeyAlgoRSA:
		c, ok := plain.(ssh.CryptoPublicKey)
		if !ok {
			break
		}
		if k, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() >= minRSABits {
			return nil
		}
		return fmt.Errorf("%w: RSA keys need at least %d bits", ErrAlgorithm, minRSABits)
	}
	return fmt.Errorf("%w: key type %q", ErrAlgorithm, printable(plain.Type(), 64))
}

// PlainKey is the key itself, or the one inside a certificate.
func PlainKey(key ssh.PublicKey) ssh.PublicKey {
	if c, ok := key.(*ssh.Certificate); ok {
		return c.Key
	}
	return key
}

func formatFits(key ssh.PublicKey, format string) bool {
	if key.Type() == ssh.KeyAlgoRSA {
		return format == ssh.KeyAlgoRSASHA256 || format == ssh.KeyAlgoRSASHA512
	}
	return format == key.Type()
}

func armor(raw []byte) []byte {
	text := base64.StdEncoding.EncodeToString(raw)
	var b bytes.Buffer
	b.WriteString(sshsigBegin)
	for len(text) > sshsigLine {
		b.WriteString(text[:sshsigLine] + "\n")
		text = text[sshsigLine:]
	}
	b.WriteString(text + "\n" + sshsigEnd + "\n")
	return b.Bytes()
}

func unarmor(armored []byte) ([]byte, error) {
	if len(armored) > maxSignature {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(armored))
	}
	text := strings.ReplaceAll(string(armored), "\r\n", "\n")
	body, ok := strings.CutPrefix(text, sshsigBegin)
	if !ok {
		return nil, fmt.Errorf("%w: no BEGIN line", ErrMalformed)
	}
	body, tail, ok := strings.Cut(body, sshsigEnd)
	if !ok || strings.TrimRight(tail, "\n") != "" {
		return nil, fmt.Errorf("%w: no END line, or text after it", ErrMalformed)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.ReplaceAll(body, "\n", ""))
	if err != nil {
		return nil, fmt.Errorf("%w: base64", ErrMalformed)
	}
	return raw, nil
}

// printable bounds what a stranger wrote and keeps it from steering a terminal.
func printable(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '`' || r == '|' || r == '\\' {
			return '?'
		}
		return r
	}, s)
}
