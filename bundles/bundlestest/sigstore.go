// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundlestest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	"github.com/digitorus/timestamp"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/muster-fleet/muster/bundles"
)

// Sigstore is a private deployment in memory: a certificate authority as Fulcio is one, and as far as it has them
// a transparency log, a timestamp authority and a certificate log. Its signatures are real.
type Sigstore struct {
	root, ca, tsa   *x509.Certificate
	caKey, tsaKey   *ecdsa.PrivateKey
	logKey, ctKey   *ecdsa.PrivateKey
	hasLog, hasTime bool
	hasCT           bool
}

// Part is what a deployment may have.
type Part string

// The parts.
const (
	WithLog  Part = "log"
	WithTime Part = "timestamp authority"
	WithCT   Part = "certificate log"
)

// NewSigstore makes a deployment of these parts. Its authorities are valid from a year before Issued to ten years after.
func NewSigstore(t testing.TB, parts ...Part) *Sigstore {
	t.Helper()
	s := &Sigstore{caKey: ecKey(t), tsaKey: ecKey(t), logKey: ecKey(t), ctKey: ecKey(t)}
	for _, p := range parts {
		s.hasLog, s.hasTime, s.hasCT = s.hasLog || p == WithLog, s.hasTime || p == WithTime, s.hasCT || p == WithCT
	}
	rootKey := ecKey(t)
	authority := func(name string) *x509.Certificate {
		from, to := validity()
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"acme"}}, NotBefore: from, NotAfter: to,
			KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		}
	}
	template := authority("acme root")
	s.root = certificate(t, template, template, &rootKey.PublicKey, rootKey)
	template = authority("acme fulcio")
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	s.ca = certificate(t, template, s.root, &s.caKey.PublicKey, rootKey)
	stamping, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	must(t, err)
	template = authority("acme time")
	template.IsCA, template.KeyUsage = false, x509.KeyUsageDigitalSignature
	template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: stamping}}
	s.tsa = certificate(t, template, s.root, &s.tsaKey.PublicKey, rootKey)
	return s
}

func validity() (from, to time.Time) { return Issued().AddDate(-1, 0, 0), Issued().AddDate(10, 0, 0) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func certificate(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

// TrustedRoot is the deployment's trusted_root.json.
func (s *Sigstore) TrustedRoot(t testing.TB) string {
	t.Helper()
	from, to := validity()
	logs := func(has bool, name string, key *ecdsa.PrivateKey) map[string]*root.TransparencyLog {
		if !has {
			return nil
		}
		id := logID(t, key)
		return map[string]*root.TransparencyLog{hex.EncodeToString(id): {
			BaseURL: "https://" + name + ".acme.example", ID: id, HashFunc: crypto.SHA256, PublicKey: key.Public(),
			SignatureHashFunc: crypto.SHA256, ValidityPeriodStart: from, ValidityPeriodEnd: to,
		}}
	}
	cas := []root.CertificateAuthority{&root.FulcioCertificateAuthority{
		Root: s.root, Intermediates: []*x509.Certificate{s.ca}, ValidityPeriodStart: from, ValidityPeriodEnd: to, URI: "https://fulcio.acme.example",
	}}
	var tsas []root.TimestampingAuthority
	if s.hasTime {
		tsas = append(tsas, &root.SigstoreTimestampingAuthority{
			Root: s.root, Leaf: s.tsa, ValidityPeriodStart: from, ValidityPeriodEnd: to, URI: "https://time.acme.example",
		})
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, cas, logs(s.hasCT, "ct", s.ctKey), tsas, logs(s.hasLog, "log", s.logKey))
	must(t, err)
	text, err := trusted.MarshalJSON()
	must(t, err)
	return string(text)
}

// Keyless is one entry of a list of signers, in YAML.
func (s *Sigstore) Keyless(t testing.TB, name, issuer, subject string) string {
	t.Helper()
	return fmt.Sprintf("  - name: %s\n    keyless: {issuer: %q, subject: %q, trustedRoot: %s}\n", name, issuer, subject, s.TrustedRoot(t))
}

// Signing is one signature, and what may be wrong with it.
type Signing struct {
	Issuer, Subject string
	Also            string // a second subject in the same certificate
	// At is when the certificate begins; it is valid for ten minutes. Witnessed is what log and timestamp authority
	// say; zero is five minutes later.
	At, Witnessed time.Time
	// NoLog, NoTime and NoSCT leave out what the deployment has.
	NoLog, NoTime, NoSCT bool
	// Envelope signs doc as the payload of a DSSE envelope instead of as a message. The log then has no entry.
	Envelope bool
}

// Bundle signs a document with a new certificate.
func (s *Sigstore) Bundle(t testing.TB, doc []byte, by Signing) []byte {
	t.Helper()
	by = by.withTimes()
	key := ecKey(t)
	cert := s.leaf(t, key.Public(), by)
	message := doc
	if by.Envelope {
		message = fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(doc), doc)
	}
	sum := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	must(t, err)
	material := map[string]any{"certificate": map[string]any{"rawBytes": cert.Raw}}
	if s.hasLog && !by.NoLog && !by.Envelope {
		material["tlogEntries"] = []any{s.logged(t, sum[:], sig, cert, by.Witnessed)}
	}
	if s.hasTime && !by.NoTime {
		material["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": s.stamp(t, sig, by.Witnessed)}}}
	}
	bundle := map[string]any{
		"mediaType":            "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": material,
	}
	if by.Envelope {
		bundle["dsseEnvelope"] = map[string]any{"payload": doc, "payloadType": payloadType, "signatures": []any{map[string]any{"sig": sig}}}
	} else {
		bundle["messageSignature"] = map[string]any{"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": sum[:]}, "signature": sig}
	}
	text, err := json.Marshal(bundle)
	must(t, err)
	return text
}

// Simple signs a payload as cosign's older kind has it: the layer at a tag .sig, and what its annotations say.
func (s *Sigstore) Simple(t testing.TB, payload []byte, by Signing) bundles.SimpleSignature {
	t.Helper()
	by = by.withTimes()
	key := ecKey(t)
	cert := s.leaf(t, key.Public(), by)
	sum := sha256.Sum256(payload)
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	must(t, err)
	out := bundles.SimpleSignature{Payload: payload, Signature: base64.StdEncoding.EncodeToString(sig)}
	out.Certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	if s.hasLog && !by.NoLog {
		entry := s.logged(t, sum[:], sig, cert, by.Witnessed)
		text, err := json.Marshal(map[string]any{
			"SignedEntryTimestamp": entry["inclusionPromise"].(map[string]any)["signedEntryTimestamp"],
			"Payload": map[string]any{
				"body": entry["canonicalizedBody"], "integratedTime": by.Witnessed.Unix(), "logIndex": 0, "logID": hex.EncodeToString(logID(t, s.logKey)),
			},
		})
		must(t, err)
		out.Log = string(text)
	}
	if s.hasTime && !by.NoTime {
		text, err := json.Marshal(map[string]any{"SignedRFC3161Timestamp": s.stamp(t, sig, by.Witnessed)})
		must(t, err)
		out.Timestamp = string(text)
	}
	return out
}

func (by Signing) withTimes() Signing {
	if by.At.IsZero() {
		by.At = Issued()
	}
	if by.Witnessed.IsZero() {
		by.Witnessed = by.At.Add(5 * time.Minute)
	}
	return by
}

const payloadType = "application/vnd.in-toto+json"

// leaf is a certificate as Fulcio issues it, with a certificate log's promise when there is one.
func (s *Sigstore) leaf(t testing.TB, key crypto.PublicKey, by Signing) *x509.Certificate {
	t.Helper()
	issuer, err := asn1.MarshalWithParams(by.Issuer, "utf8")
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(by.At.UnixNano()), NotBefore: by.At, NotAfter: by.At.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		// As Fulcio writes it: the form that the older checks read, and the one that replaces it.
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(by.Issuer)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer},
		},
	}
	for _, subject := range []string{by.Subject, by.Also} {
		switch {
		case strings.Contains(subject, "://"):
			u, err := url.Parse(subject)
			must(t, err)
			template.URIs = append(template.URIs, u)
		case subject != "":
			template.EmailAddresses = append(template.EmailAddresses, subject)
		}
	}
	cert := certificate(t, template, s.ca, key, s.caKey)
	if !s.hasCT || by.NoSCT {
		return cert
	}
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{
		Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: s.promise(t, cert.RawTBSCertificate, by.At),
	})
	return certificate(t, template, s.ca, key, s.caKey)
}

// promise is a signed certificate timestamp over a precertificate (RFC 6962, 3.2 and 3.3).
func (s *Sigstore) promise(t testing.TB, tbs []byte, at time.Time) []byte {
	t.Helper()
	issuer := sha256.Sum256(s.ca.RawSubjectPublicKeyInfo)
	stamp := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli()))
	signed := bytes.Join([][]byte{{0, 0}, stamp, {0, 1}, issuer[:], {byte(len(tbs) >> 16), byte(len(tbs) >> 8), byte(len(tbs))}, tbs, {0, 0}}, nil)
	sum := sha256.Sum256(signed)
	sig, err := ecdsa.SignASN1(rand.Reader, s.ctKey, sum[:])
	must(t, err)
	sct := bytes.Join([][]byte{{0}, logID(t, s.ctKey), stamp, {0, 0}, {4, 3}, prefixed(sig)}, nil)
	value, err := asn1.Marshal(prefixed(prefixed(sct)))
	must(t, err)
	return value
}

func prefixed(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func logID(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	sum := sha256.Sum256(der)
	return sum[:]
}

func (s *Sigstore) stamp(t testing.TB, sig []byte, at time.Time) []byte {
	t.Helper()
	sum := sha256.Sum256(sig)
	return s.stampDigest(t, sum[:], at, nil)
}

func (s *Sigstore) stampDigest(t testing.TB, digest []byte, at time.Time, nonce *big.Int) []byte {
	t.Helper()
	answer, err := (&timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: digest, Time: at, Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2},
		AddTSACertificate: true, Nonce: nonce,
	}).CreateResponseWithOpts(s.tsa, s.tsaKey, crypto.SHA256)
	must(t, err)
	return answer
}

// logged is the entry of a log that holds nothing else: promise, and proof of inclusion in a tree of one leaf.
func (s *Sigstore) logged(t testing.TB, digest, sig []byte, cert *x509.Certificate, at time.Time) map[string]any {
	t.Helper()
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	body := canonical(t, map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
		"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(digest)}},
		"signature": map[string]any{"content": sig, "publicKey": map[string]any{"content": certPEM}},
	}})
	id := logID(t, s.logKey)
	leaf := sha256.Sum256(append([]byte{0}, body...))
	return map[string]any{
		"logIndex": "0", "logId": map[string]any{"keyId": id}, "kindVersion": map[string]any{"kind": "hashedrekord", "version": "0.0.1"},
		"integratedTime": fmt.Sprint(at.Unix()), "canonicalizedBody": body,
		"inclusionPromise": map[string]any{"signedEntryTimestamp": s.logSigns(t, canonical(t, map[string]any{
			"body": base64.StdEncoding.EncodeToString(body), "integratedTime": at.Unix(), "logID": hex.EncodeToString(id), "logIndex": 0,
		}))},
		"inclusionProof": map[string]any{
			"logIndex": "0", "treeSize": "1", "rootHash": leaf[:], "hashes": []any{},
			"checkpoint": map[string]any{"envelope": s.checkpoint(t, leaf[:])},
		},
	}
}

// checkpoint is a signed note (as Rekor writes it).
func (s *Sigstore) checkpoint(t testing.TB, rootHash []byte) string {
	t.Helper()
	text := fmt.Sprintf("log.acme.example - 1\n1\n%s\n", base64.StdEncoding.EncodeToString(rootHash))
	sig := append(logID(t, s.logKey)[:4:4], s.logSigns(t, []byte(text))...)
	return text + "\n— log.acme.example " + base64.StdEncoding.EncodeToString(sig) + "\n"
}

func (s *Sigstore) logSigns(t testing.TB, message []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, s.logKey, sum[:])
	must(t, err)
	return sig
}

func canonical(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	text, err = jsoncanonicalizer.Transform(text)
	must(t, err)
	return text
}

// Serve serves the certificate authority, the timestamp authority and the log over HTTP as the stock tools ask them, and
// answers the URL. The authority asks for no identity token's proof: whoever reaches it gets a certificate for this identity.
func (s *Sigstore) Serve(t testing.TB, by Signing) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/signingCert", func(w http.ResponseWriter, r *http.Request) {
		var ask struct {
			PublicKeyRequest struct {
				PublicKey struct {
					Content string `json:"content"`
				} `json:"publicKey"`
			} `json:"publicKeyRequest"`
		}
		_ = json.NewDecoder(r.Body).Decode(&ask) // what cannot be read has no key
		if key := postedKey(w, []byte(ask.PublicKeyRequest.PublicKey.Content)); key != nil {
			_ = json.NewEncoder(w).Encode(map[string]any{"signedCertificateEmbeddedSct": map[string]any{"chain": map[string]any{"certificates": s.chain(t, key, by)}}})
		}
	})
	mux.HandleFunc("POST /api/v1/signingCert", func(w http.ResponseWriter, r *http.Request) {
		var ask struct {
			PublicKey struct {
				Content []byte `json:"content"`
			} `json:"publicKey"`
		}
		_ = json.NewDecoder(r.Body).Decode(&ask) // as above
		if key := postedKey(w, ask.PublicKey.Content); key != nil {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, strings.Join(s.chain(t, key, by), ""))
		}
	})
	mux.HandleFunc("POST /api/v1/timestamp", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ask, err := timestamp.ParseRequest(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/timestamp-reply")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(s.stampDigest(t, ask.HashedMessage, by.At.Add(5*time.Minute), ask.Nonce))
	})
	if s.hasLog {
		s.serveLog(t, mux, by.At.Add(5*time.Minute))
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// postedKey is the public key that somebody wants a certificate for; without one it answers so, and nil.
func postedKey(w http.ResponseWriter, text []byte) crypto.PublicKey {
	block, _ := pem.Decode(text)
	if block == nil {
		http.Error(w, "no key", http.StatusBadRequest)
		return nil
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil
	}
	return key
}

// chain is a new certificate and those above it.
func (s *Sigstore) chain(t testing.TB, key crypto.PublicKey, by Signing) []string {
	t.Helper()
	var chain []string
	for _, c := range []*x509.Certificate{s.leaf(t, key, by), s.ca, s.root} {
		chain = append(chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
	}
	return chain
}

// SigningConfig is the signing_config.json that leads to what Serve serves.
func (s *Sigstore) SigningConfig(t testing.TB, by Signing) string {
	t.Helper()
	base := s.Serve(t, by)
	from, _ := validity()
	service := func(path string) []any {
		return []any{map[string]any{"url": base + path, "majorApiVersion": 1, "validFor": map[string]any{"start": from.Format(time.RFC3339)}, "operator": "acme"}}
	}
	config := map[string]any{"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json", "caUrls": service("")}
	if s.hasTime {
		config["tsaUrls"], config["tsaConfig"] = service("/api/v1/timestamp"), map[string]any{"selector": "ANY"}
	}
	text, err := json.Marshal(config)
	must(t, err)
	return string(text)
}
