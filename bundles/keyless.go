// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"go.yaml.in/yaml/v3"
)

// Keyless is one exact identity in certificates of one certificate authority, and everything that is needed
// to check a signature by it without asking anybody.
type Keyless struct {
	Issuer  string `yaml:"issuer"`
	Subject string `yaml:"subject"`
	// TrustedRoot is a Sigstore trusted_root.json, inline. What it names is required: with transparency logs
	// a signature must be in one, with certificate logs the certificate must have been; and always somebody
	// in it, a log or a timestamp authority, must have witnessed when the signature was made.
	TrustedRoot yaml.Node `yaml:"trustedRoot"`

	verifier *verify.Verifier
	identity verify.CertificateIdentity
}

// prepare makes the verifier. Patterns, empty identities and roots that could never verify anything are errors.
func (k *Keyless) prepare(s *Signer) error {
	bad := func(cause error, format string, args ...any) error {
		return NewRefusal(ErrTrust, cause, "trust.yaml: signer %q: %s", s.Name, fmt.Sprintf(format, args...))
	}
	if s.Key != "" {
		return bad(nil, "there are both a key and a keyless identity")
	}
	for what, v := range map[string]string{"issuer": k.Issuer, "subject": k.Subject} {
		if strings.TrimSpace(v) == "" || strings.ContainsAny(v, "*?[]()|^$\\ \t\r\n") {
			return bad(nil, "the %s must be exact, not empty and not a pattern", what)
		}
	}
	trusted, err := loadTrustedRoot(&k.TrustedRoot)
	if err != nil {
		return bad(err, "its trustedRoot cannot be used")
	}
	options := []verify.VerifierOption{verify.WithObserverTimestamps(1)}
	if len(trusted.RekorLogs()) > 0 {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if len(trusted.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	if k.verifier, err = verify.NewVerifier(trusted, options...); err != nil {
		return bad(err, "its trustedRoot cannot be used")
	}
	// Both matchers are given exact values and no expression.
	k.identity, err = verify.NewShortCertificateIdentity(k.Issuer, "", k.Subject, "")
	if err != nil {
		return bad(err, "its identity cannot be used")
	}
	sum := sha256.Sum256([]byte("muster.dev/keyless/v1\x00" + k.Issuer + "\x00" + k.Subject))
	s.id = hex.EncodeToString(sum[:])
	return nil
}

// loadTrustedRoot reads a trusted_root.json that stands inline in a YAML file; JSON is YAML already.
func loadTrustedRoot(node *yaml.Node) (*root.TrustedRoot, error) {
	if err := plainNode(node, 0); err != nil {
		return nil, err
	}
	var value map[string]any
	if err := node.Decode(&value); err != nil {
		return nil, err
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	trusted, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		return nil, err
	}
	switch {
	case len(trusted.FulcioCertificateAuthorities()) == 0:
		return nil, errors.New("it names no certificate authority")
	case len(trusted.RekorLogs()) == 0 && len(trusted.TimestampingAuthorities()) == 0:
		return nil, errors.New("it names neither a log nor a timestamp authority, so nothing could say when a signature was made")
	}
	return trusted, nil
}

// maxRootDepth is far deeper than a trusted root.
const maxRootDepth = 32

// plainNode refuses what could make a small file large, or two readers read two things.
func plainNode(n *yaml.Node, depth int) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 || depth > maxRootDepth {
		return fmt.Errorf("line %d: anchors, aliases, tags and deep nesting are not accepted", n.Line)
	}
	for _, c := range n.Content {
		if err := plainNode(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// check answers how the identity signed doc: by whom it was witnessed and when. The current time has no part.
func (k *Keyless) check(b *bundle.Bundle, file string, doc []byte) (string, error) {
	if err := oneIdentity(b); err != nil {
		return "", refuse(ErrIdentity, "%s", file).because(err)
	}
	policy := verify.NewPolicy(verify.WithArtifact(bytes.NewReader(doc)), verify.WithCertificateIdentity(k.identity))
	result, err := k.verifier.Verify(b, policy)
	if err != nil {
		return "", refuse(k.why(b, err), "%s", file).because(err)
	}
	var seen []string
	for _, ts := range result.VerifiedTimestamps {
		seen = append(seen, fmt.Sprintf("%s at %s", ts.Type, ts.Timestamp.UTC().Format(time.RFC3339)))
	}
	return fmt.Sprintf("%s by %s, witnessed by %s", k.Subject, k.Issuer, strings.Join(seen, ", ")), nil
}

// why tells the kinds of failure apart by doing the library's steps again, one by one.
func (k *Keyless) why(b *bundle.Bundle, err error) *Kind {
	if _, ok := errors.AsType[*verify.ErrNoMatchingCertificateIdentity](err); ok {
		return ErrIdentity
	}
	logged, err := k.verifier.VerifyTransparencyLogInclusion(b)
	if err != nil {
		return ErrNotLogged
	}
	if _, err := k.verifier.VerifyObserverTimestamps(b, logged); err != nil {
		return ErrUntimed
	}
	return ErrCertificate
}

// oneIdentity refuses a certificate that names several subjects: which of them two readers take is theirs to choose.
func oneIdentity(b *bundle.Bundle) error {
	content, err := b.VerificationContent()
	if err != nil {
		return err
	}
	cert := content.Certificate()
	if cert == nil {
		return errors.New("there is no certificate")
	}
	if n := subjects(cert); n != 1 {
		return fmt.Errorf("the certificate names %d subjects", n)
	}
	return nil
}

func subjects(cert *x509.Certificate) int {
	n := len(cert.URIs) + len(cert.EmailAddresses) + len(cert.DNSNames) + len(cert.IPAddresses)
	if other, err := cryptoutils.UnmarshalOtherNameSAN(cert.Extensions); err == nil && other != "" {
		n++
	}
	return n
}
