// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
)

// The schemas of the signed documents.
const (
	ReleaseSchema = "muster.dev/release/v1"
	FreshSchema   = "muster.dev/fresh/v1"
)

// The places of the signed documents within a release.
const (
	MetaDir       = ".muster"
	ReleasePath   = ".muster/release.json"
	SignaturesDir = ".muster/signatures"
	FreshPath     = ".muster/fresh.json"
	FreshSigPath  = ".muster/fresh.sigstore.json"
	TrustDir      = ".muster/trust"
	signatureExt  = ".sigstore.json"
)

// Fresh is .muster/fresh.json: a freshness signer's word that a release is still the current one.
type Fresh struct {
	Schema   string    `json:"schema"`
	Release  string    `json:"release"` // sha256:<hex> of release.json
	Sequence int64     `json:"sequence"`
	Issued   time.Time `json:"issued"`
	Expires  time.Time `json:"expires"`
}

// DigestOf is the digest by which a release document is known: sha256:<hex> of its bytes.
func DigestOf(doc []byte) string {
	sum := sha256.Sum256(doc)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// canonical encodes v as RFC 8785.
func canonical(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jsoncanonicalizer.Transform(b)
}

// canonical encodes the release as RFC 8785, the long list of its files without going through a second parser: a test
// compares the two. What its fast way is not sure about goes the slow one.
func (r *Release) canonical() ([]byte, error) {
	if r.Files == nil {
		return canonical(r)
	}
	short := *r
	short.Files = []ReleaseFile{}
	frame, err := canonical(&short)
	if err != nil {
		return nil, err
	}
	const list = `"files":[` // within a string its quotes would be escaped
	head, tail, _ := bytes.Cut(frame, []byte(list))
	out := make([]byte, 0, len(frame)+len(r.Files)*176)
	out = append(append(out, head...), list...)
	for i, f := range r.Files {
		if i > 0 {
			out = append(out, ',')
		}
		if out, err = f.appendTo(out); err != nil {
			return nil, err
		}
	}
	return append(out, tail...), nil
}

func (f *ReleaseFile) appendTo(out []byte) ([]byte, error) {
	if strings.ContainsFunc(f.Path, notInPath) || !hexDigest.MatchString(f.SHA256) || f.Size < 0 || f.Size > maxFileBytes {
		text, err := canonical(f)
		return append(out, text...), err
	}
	out = append(append(append(append(out, `{"path":"`...), f.Path...), `","sha256":"`...), f.SHA256...)
	return append(strconv.AppendInt(append(out, `","size":`...), f.Size, 10), '}'), nil
}

// decodeCanonical decodes exactly one document and refuses unknown fields and every byte that the
// re-encoding would not write: doubled keys, other case, other order, whitespace, big numbers, bad UTF-8.
func decodeCanonical(what string, data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		if strings.HasPrefix(err.Error(), "json: unknown field") {
			return refuse(ErrUnknownField, "%s", what).because(err)
		}
		return refuse(ErrMalformed, "%s", what).because(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return refuse(ErrNotCanonical, "%s: there is something after the document", what)
	}
	again, err := encodeAgain(into)
	if err != nil {
		return refuse(ErrNotCanonical, "%s", what).because(err)
	}
	if !bytes.Equal(again, data) {
		return refuse(ErrNotCanonical, "%s: its re-encoding differs from its bytes", what)
	}
	return nil
}

func encodeAgain(v any) ([]byte, error) {
	if r, ok := v.(*Release); ok {
		return r.canonical()
	}
	return canonical(v)
}

var commitHash = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// decodeRelease parses release.json; the caller has verified its signatures over these very bytes.
func decodeRelease(doc []byte) (*Release, error) {
	var r Release
	if err := decodeCanonical("release.json", doc, &r); err != nil {
		return nil, err
	}
	if r.Schema != ReleaseSchema {
		return nil, refuse(ErrUnsupported, "release.json: schema %q is not %q", r.Schema, ReleaseSchema)
	}
	if err := r.checkRanges(); err != nil {
		return nil, err
	}
	if err := checkFileList(r.Files); err != nil {
		return nil, err
	}
	return &r, nil
}

// checkRanges checks each field by itself.
func (r *Release) checkRanges() error {
	bad := func(format string, args ...any) error {
		return refuse(ErrMalformed, "release.json: "+format, args...)
	}
	switch {
	case !ValidName(r.Name):
		return bad("name %q is not a name", r.Name)
	case !ValidName(r.Channel):
		return bad("channel %q is not a name", r.Channel)
	case r.Epoch < 1 || r.Epoch > maxCounter:
		return bad("epoch %d is out of range", r.Epoch)
	case r.Sequence < 1 || r.Sequence > maxCounter:
		return bad("sequence %d is out of range", r.Sequence)
	case r.Issued.IsZero() || r.Issued.Location() != time.UTC || r.Issued.Nanosecond() != 0:
		return bad("issued must be in UTC and whole seconds")
	case !commitHash.MatchString(r.Source.Commit):
		return bad("source.commit is not a commit hash")
	case len(r.Source.Repository) > maxPath:
		return bad("source.repository is too long")
	case r.Files == nil:
		return bad("files is missing")
	}
	return nil
}

func decodeFresh(doc []byte) (*Fresh, error) {
	var f Fresh
	if err := decodeCanonical("fresh.json", doc, &f); err != nil {
		return nil, err
	}
	if f.Schema != FreshSchema {
		return nil, refuse(ErrUnsupported, "fresh.json: schema %q is not %q", f.Schema, FreshSchema)
	}
	if !f.Issued.Before(f.Expires) {
		return nil, refuse(ErrMalformed, "fresh.json: it expires before it is issued")
	}
	return &f, nil
}
