// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// StandDownSchema is the schema of a statement that lifts the self-protection of hosts.
const StandDownSchema = "muster.dev/stand-down/v1"

// AllHosts is the host of a statement that is for every host of the fleet.
const AllHosts = "*"

// MaxStandDown is the longest window: who needs longer sets protectSelf: false in it.
const MaxStandDown = 7 * 24 * time.Hour

const (
	maxStandDownDoc  = 16 << 10
	maxStandDownFile = 64 << 10 // what the agent's control socket takes in one request
	maxStandDownText = 1024
	nonceBytes       = 16
)

// The refusals of a statement that is otherwise in order.
var (
	ErrNotYetValid = &Kind{"not-yet-valid", "the stand-down begins later", "give it to the agent again within its window, or set this host's clock"}
	ErrExpired     = &Kind{"expired", "the stand-down is over", "have a new one signed: muster stand-down sign"}
	ErrWrongHost   = &Kind{"wrong-host", "the stand-down is for another host", "have one signed for this host, or for all: --host '*'"}
	ErrReplayed    = &Kind{"replayed", "the stand-down was used on this host", "have a new one signed: muster stand-down sign"}
)

// StandDown is the owner's word that hosts may be changed: within the window their agents do not protect themselves.
type StandDown struct {
	Schema    string    `json:"schema"`
	Fleet     string    `json:"fleet"`
	Channel   string    `json:"channel"`
	Host      string    `json:"host"` // a host's name in the fleet, or AllHosts
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Nonce     string    `json:"nonce"` // 32 hex digits; a host accepts each once
	Reason    string    `json:"reason"`
}

// SignedStandDown is the file that signers pass on and the agent is given. Document is what they sign, byte for byte.
type SignedStandDown struct {
	Document   []byte                     `json:"document"`
	Signatures map[string]json.RawMessage `json:"signatures"` // Sigstore bundles v0.3, by signer
}

// NewStandDown makes an unsigned statement with a nonce of its own.
func NewStandDown(t *Trust, host string, notBefore time.Time, lasting time.Duration, reason string) (*SignedStandDown, error) {
	nonce := make([]byte, nonceBytes)
	_, _ = rand.Read(nonce) // never fails
	s := &StandDown{
		Schema: StandDownSchema, Fleet: t.Fleet, Channel: t.Channel, Host: host, Nonce: fmt.Sprintf("%x", nonce), Reason: reason,
		NotBefore: notBefore.UTC().Truncate(time.Second), NotAfter: notBefore.Add(lasting).UTC().Truncate(time.Second),
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	doc, err := canonical(s)
	if err != nil {
		return nil, err
	}
	return &SignedStandDown{Document: doc, Signatures: map[string]json.RawMessage{}}, nil
}

// ReadStandDown reads the file. Nothing of it is believed: what is in the document is read by Verify, after the
// signatures, or by Claim, for whoever is about to sign.
func ReadStandDown(data []byte) (*SignedStandDown, error) {
	if len(data) > maxStandDownFile {
		return nil, refuse(ErrLimits, "a stand-down of more than %d bytes", maxStandDownFile)
	}
	var s SignedStandDown
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return nil, refuse(ErrMalformed, "the stand-down").because(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, refuse(ErrMalformed, "there is something after the stand-down")
	}
	if len(s.Document) > maxStandDownDoc || len(s.Signatures) > maxSignatures {
		return nil, refuse(ErrLimits, "a stand-down of %d bytes with %d signatures", len(s.Document), len(s.Signatures))
	}
	if s.Signatures == nil {
		s.Signatures = map[string]json.RawMessage{}
	}
	return &s, nil
}

// Claim is what the document says, whoever signed it.
func (s *SignedStandDown) Claim() (*StandDown, error) {
	var d StandDown
	if err := decodeCanonical("the stand-down", s.Document, &d); err != nil {
		return nil, err
	}
	return &d, d.check()
}

var noncePattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// check checks each field by itself.
func (d *StandDown) check() error {
	bad := func(format string, args ...any) error {
		return refuse(ErrMalformed, "the stand-down: "+format, args...)
	}
	switch {
	case d.Schema != StandDownSchema:
		return refuse(ErrUnsupported, "the stand-down: schema %q is not %q", d.Schema, StandDownSchema)
	case d.Host == "" || len(d.Host) > 63:
		return bad("host %q is no host", d.Host)
	case !noncePattern.MatchString(d.Nonce):
		return bad("the nonce is not 32 hex digits")
	case d.Reason == "" || len(d.Reason) > maxStandDownText:
		return bad("it needs a reason of at most %d bytes", maxStandDownText)
	case !d.NotBefore.Before(d.NotAfter):
		return bad("it ends before it begins")
	case d.NotAfter.Sub(d.NotBefore) > MaxStandDown:
		return bad("it lasts longer than %s", MaxStandDown)
	}
	return nil
}

// belongs says whether the statement is for hosts of this trust.
func (d *StandDown) belongs(t *Trust) error {
	switch {
	case d.Fleet != t.Fleet:
		return refuse(ErrWrongFleet, "the stand-down is for fleet %s, the trust is of %s", d.Fleet, t.Fleet)
	case d.Channel != t.Channel:
		return refuse(ErrWrongChannel, "the stand-down is for channel %s, the trust is of %s", d.Channel, t.Channel)
	}
	return nil
}

// Sign adds the signature of a key of this trust, to a statement for its fleet and channel. It replaces an earlier one of
// the same signer.
func (s *SignedStandDown) Sign(ctx context.Context, t *Trust, k *KeySigner) error {
	d, err := s.Claim()
	if err != nil {
		return err
	}
	if err := d.belongs(t); err != nil {
		return err
	}
	by, err := newSigners(t, []*KeySigner{k}, nil)
	if err != nil {
		return err
	}
	made, err := by.sign(ctx, s.Document, nil)
	if err != nil {
		return err
	}
	for name, sig := range made {
		s.Signatures[name] = sig
	}
	return nil
}

// StandDownThreshold is how many signers a stand-down needs: as many as a new trust file, or, where nobody but the
// host's operator may replace that, as many as a release that is enforced.
func (t *Trust) StandDownThreshold() int {
	if t.Threshold.Trust > 0 {
		return t.Threshold.Trust
	}
	return t.Threshold.Enforce
}

// Signers are those of the trust who signed, and why other signatures do not count.
func (s *SignedStandDown) Signers(t *Trust) (signers []string, problems []error) {
	for _, name := range slices.Sorted(maps.Keys(s.Signatures)) {
		b, err := parseSigBundle(name, s.Signatures[name])
		if err != nil {
			problems = append(problems, err)
			continue
		}
		by, _, err := signedBy(cosignVerifier{}, b, s.Document, t.Signers)
		switch {
		case err != nil:
			problems = append(problems, err)
		case t.RevokedKey(by.id):
			problems = append(problems, refuse(ErrRevoked, "the key of %s is revoked", by.Name))
		case !slices.Contains(signers, by.Name):
			signers = append(signers, by.Name)
		}
	}
	slices.Sort(signers)
	return signers, problems
}

// Verify answers the statement when it holds on this host now: signed by enough, for this fleet and host, within its
// window, and not used before. The document is not read before its signatures have been counted.
func (s *SignedStandDown) Verify(t *Trust, host string, now time.Time, used func(nonce string) bool) (*StandDown, []string, error) {
	signers, problems := s.Signers(t)
	if need := t.StandDownThreshold(); len(signers) < need {
		r := refuse(ErrTooFewSigners, "%d of %d signers of the trust (%s) signed the stand-down", len(signers), need, strings.Join(signers, ", "))
		return nil, nil, r.withHint("another signer runs muster stand-down sign FILE").because(errors.Join(problems...))
	}
	d, err := s.Claim()
	if err != nil {
		return nil, nil, err
	}
	if err := d.belongs(t); err != nil {
		return nil, nil, err
	}
	switch {
	case d.Host != AllHosts && d.Host != host:
		return nil, nil, refuse(ErrWrongHost, "it is for %s, this is %s", d.Host, host)
	case now.Before(d.NotBefore):
		return nil, nil, refuse(ErrNotYetValid, "it begins at %s", d.NotBefore.Format(time.RFC3339))
	case !now.Before(d.NotAfter):
		return nil, nil, refuse(ErrExpired, "it ended at %s", d.NotAfter.Format(time.RFC3339))
	case used(d.Nonce):
		return nil, nil, refuse(ErrReplayed, "it was used on this host: nonce %s", d.Nonce)
	}
	return d, signers, nil
}
