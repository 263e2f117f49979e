// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"
)

// Attestation is a statement that a release needs besides its signatures, and whose word counts for it. It is a gate
// and never a signature: who lints or builds a release has not approved of it.
type Attestation struct {
	Type    string   `yaml:"type"` // the statement's predicateType, in full
	Signers []Signer `yaml:"signers"`
}

// The predicates that are looked into; of others, who signed and what about is all that counts.
const (
	PredicateLint       = "https://muster.dev/attestation/lint/v1"
	PredicateProvenance = "https://slsa.dev/provenance/v1"
)

// AttestationsDir is where the statements about a release lie in it.
const AttestationsDir = ".muster/attestations"

const (
	inTotoPayload   = "application/vnd.in-toto+json"
	maxAttestations = 16 // kinds that a trust file may ask for
)

// ContentDocument is what a lint result is about: the files of a release to be, before it has a number. Its bytes are
// the same wherever it is made.
func ContentDocument(files map[string][]byte) ([]byte, error) {
	list := fileList(files)
	if err := checkFileList(list); err != nil {
		return nil, err
	}
	return canonical(list)
}

// lintResult is the predicate of muster lint --attest.
type lintResult struct {
	Result   string `json:"result"` // pass
	Warnings int    `json:"warnings"`
}

// AttestLint signs that these files have no problems.
func (k *KeySigner) AttestLint(ctx context.Context, files map[string][]byte, warnings int) ([]byte, error) {
	doc, err := ContentDocument(files)
	if err != nil {
		return nil, err
	}
	statement, err := json.Marshal(map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       []any{map[string]any{"name": "files", "digest": map[string]string{"sha256": strings.TrimPrefix(DigestOf(doc), "sha256:")}}},
		"predicateType": PredicateLint,
		"predicate":     lintResult{Result: "pass", Warnings: warnings},
	})
	if err != nil {
		return nil, err
	}
	b, err := sign.Bundle(&sign.DSSEData{Data: statement, PayloadType: inTotoPayload}, keypair{k}, sign.BundleOptions{Context: ctx})
	if err != nil {
		return nil, err
	}
	return protojson.Marshal(b)
}

// AttestationFile is where a statement lies in a release; it is named after its bytes.
func AttestationFile(data []byte) string {
	return AttestationsDir + "/" + strings.TrimPrefix(DigestOf(data), "sha256:")[:16] + signatureExt
}

func (a *Attestation) prepare() error {
	if a.Type == "" || strings.ContainsAny(a.Type, " *\t\n") {
		return refuse(ErrTrust, "trust.yaml: an attestation needs the type of its predicate, in full")
	}
	if len(a.Signers) == 0 || len(a.Signers) > maxSigners {
		return refuse(ErrTrust, "trust.yaml: attestation %s needs between 1 and %d signers", a.Type, maxSigners)
	}
	for i := range a.Signers {
		if err := a.Signers[i].prepare(); err != nil {
			return err
		}
	}
	return distinct("attestations.signers", a.Signers)
}

// checkAttestations is the gate: of each kind that the trust asks for, one statement about this release.
func (e *examination) checkAttestations() (string, error) {
	if len(e.trust.Attestations) == 0 {
		return "the trust does not ask for any", nil
	}
	files, err := readSignatures(e.raw.FS, AttestationsDir, signatureExt)
	if err != nil {
		return "", err
	}
	content, err := canonical(e.v.release.Files)
	if err != nil {
		return "", err
	}
	e.v.attestations = files
	// It is about the release's document, or about the files before there was one.
	about := [][]byte{e.v.doc, content}
	// cosign attest puts its statements beside the artifact, and says them of the manifest, which names the document.
	if a := e.v.artifact; a != nil && a.names(e.v.doc) == nil {
		about = append(about, a.manifest)
		files = slices.Concat(files, a.signatures)
	}
	var found []string
	for i := range e.trust.Attestations {
		a := &e.trust.Attestations[i]
		by, err := e.attested(a, files, about)
		if err != nil {
			return "", refuse(ErrAttestation, "%s", a.Type).because(err)
		}
		found = append(found, a.Type+" by "+by)
	}
	return strings.Join(found, "; "), nil
}

func (e *examination) attested(a *Attestation, files []signatureFile, about [][]byte) (string, error) {
	problems := []error{fmt.Errorf("%d statements lie in %s, and beside the artifact", len(files), AttestationsDir)}
	for _, f := range files {
		st, err := parseStatement(f)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if st.PredicateType != a.Type {
			continue
		}
		by, err := e.believes(a, st, about)
		if err == nil {
			return by, nil
		}
		problems = append(problems, err)
	}
	return "", errors.Join(problems...)
}

// believes checks who signed, what about, and what the statement says.
func (e *examination) believes(a *Attestation, st *statement, about [][]byte) (string, error) {
	var s *Signer
	var err error
	for _, doc := range about {
		if s, _, err = signedBy(e.verifier, st.bundle, doc, a.Signers); err == nil {
			break
		}
	}
	if err != nil {
		return "", err
	}
	if e.trust.RevokedKey(s.id) {
		return "", refuse(ErrRevoked, "%s: the key of %s is revoked", st.bundle.file, s.Name)
	}
	switch a.Type {
	case PredicateLint:
		err = st.checkLint()
	case PredicateProvenance:
		err = st.checkProvenance(e.v.release.Source)
	}
	return s.Name, err
}

// statement is an in-toto statement in a DSSE bundle.
type statement struct {
	bundle        *sigBundle
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// parseStatement accepts one shape: a bundle of version 0.3 with one signature over one in-toto statement. What lies at a
// tag .att is put into that shape.
func parseStatement(f signatureFile) (*statement, error) {
	if f.err != nil {
		return nil, asRefusal(f.err, f.name)
	}
	b, older, err := statementBundle(f)
	if err != nil {
		return nil, refuse(ErrBadSignature, "%s", f.name).because(err)
	}
	content, ok := b.Content.(*protobundle.Bundle_DsseEnvelope)
	switch {
	case !ok || b.GetMediaType() != bundleV03 && !older:
		return nil, refuse(ErrBadSignature, "%s is no DSSE bundle of version 0.3", f.name)
	case content.DsseEnvelope.GetPayloadType() != inTotoPayload || len(content.DsseEnvelope.GetSignatures()) != 1:
		return nil, refuse(ErrBadSignature, "%s holds no statement with one signature", f.name)
	}
	st := &statement{bundle: &sigBundle{file: f.name, bundle: b}}
	if err := json.Unmarshal(content.DsseEnvelope.GetPayload(), st); err != nil {
		return nil, refuse(ErrBadSignature, "%s", f.name).because(err)
	}
	return st, nil
}

func statementBundle(f signatureFile) (b *bundle.Bundle, older bool, err error) {
	if strings.HasSuffix(f.name, statementExt) {
		var s SimpleStatement
		if err := json.Unmarshal(f.data, &s); err != nil {
			return nil, true, err
		}
		b, err = s.asBundle()
		return b, true, err
	}
	b = &bundle.Bundle{}
	return b, false, b.UnmarshalJSON(f.data)
}

func (s *statement) checkLint() error {
	var r lintResult
	if err := json.Unmarshal(s.Predicate, &r); err != nil {
		return err
	}
	if r.Result != "pass" {
		return fmt.Errorf("%s: the result is %q", s.bundle.file, r.Result)
	}
	return nil
}

// checkProvenance compares where the build came from with where the release says that it comes from.
func (s *statement) checkProvenance(source ReleaseSource) error {
	var p struct {
		BuildDefinition struct {
			ResolvedDependencies []struct {
				URI    string            `json:"uri"`
				Digest map[string]string `json:"digest"`
			} `json:"resolvedDependencies"`
		} `json:"buildDefinition"`
	}
	if err := json.Unmarshal(s.Predicate, &p); err != nil {
		return err
	}
	for _, d := range p.BuildDefinition.ResolvedDependencies {
		if d.Digest["gitCommit"] == source.Commit && fromRepository(d.URI, source.Repository) {
			return nil
		}
	}
	return fmt.Errorf("%s: it is not built from commit %s of %q", s.bundle.file, source.Commit, source.Repository)
}

// fromRepository says that a dependency's URI (git+https://…@ref) is of the repository; a release may not say which.
func fromRepository(uri, repository string) bool {
	uri, _, _ = strings.Cut(strings.TrimPrefix(uri, "git+"), "@")
	return repository == "" || strings.TrimSuffix(uri, ".git") == strings.TrimSuffix(repository, ".git")
}

// keepAttestations adds what a host keeps of them.
func (v *Verified) keepAttestations(out map[string][]byte) {
	for _, f := range v.attestations {
		if f.err == nil {
			out[AttestationsDir+"/"+f.name] = f.data
		}
	}
}

// addAttestations puts statements beside a release that is published already, such as the provenance of its document.
func addAttestations(ctx context.Context, ch Channel, h *history, o PublishOptions, p *Published) (*Published, error) {
	files, err := readTree(h.tipRaw.FS)
	if err != nil {
		return nil, err
	}
	added := false
	for _, data := range o.Attestations {
		name := AttestationFile(data)
		if _, there := files[name]; !there {
			files[name], added = data, true
		}
	}
	if !added {
		return p, nil
	}
	message := fmt.Sprintf("Attest release %d of %s/%s\n\n%s%s\n", p.Sequence, o.Trust.Fleet, o.Trust.Channel, ReleaseTrailer, p.Digest)
	p.Changed = true
	p.Revision, err = ch.Append(ctx, h.tip, files, message, o.Now)
	return p, err
}
