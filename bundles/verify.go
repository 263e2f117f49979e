// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/policies"
)

// Check is one check and what it found: the evidence that muster verify prints.
type Check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Evidence string `json:"evidence"`
}

// Condition is something to report about an accepted release; it refuses nothing.
type Condition struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// The types of Condition that Verify gives; REPORTS names them.
const (
	ConditionStale          = "Stale"
	ConditionForked         = "Forked"
	ConditionRewritten      = "HistoryRewritten"
	ConditionClockBackwards = "ClockBackwards"
	ConditionFutureIssued   = "FutureIssued"
	// ConditionDistrusted is of a release that is held although the trust in force would not accept it any more.
	ConditionDistrusted = "Distrusted"
)

// clockSlack is how far two honest clocks may be apart before it is worth a line in a report.
const clockSlack = 5 * time.Minute

// Verify decides whether a release is to be believed, and is the only maker of Verified. It needs no network,
// no home directory and no clock of its own. The signatures are checked over the raw bytes of release.json
// before those are parsed; no policy is parsed before every byte of it has matched the signed digest.
func Verify(raw *Raw, trust *Trust, seen Seen, now time.Time) (*Verified, error) {
	v, _, err := Inspect(raw, trust, seen, now)
	return v, err
}

// Inspect is Verify that also answers the checks made until the refusal, if there was one.
func Inspect(raw *Raw, trust *Trust, seen Seen, now time.Time) (*Verified, []Check, error) {
	e := &examination{raw: raw, trust: trust, seen: seen, now: now, verifier: cosignVerifier{}, v: &Verified{}}
	return e.run()
}

func (e *examination) run() (*Verified, []Check, error) {
	for _, step := range []struct {
		name string
		do   func() (string, error)
	}{
		{"trust", e.checkTrust},
		{"trust succession", e.checkSuccession},
		{"document", e.readDocument},
		{"revoked release", e.checkRevokedRelease},
		{"signatures", e.checkSignatures},
		{"commit", e.checkCommit},
		{"canonical form", e.decode},
		{"attestations", e.checkAttestations},
		{"fleet and channel", e.checkName},
		{"epoch and sequence", e.checkMarks},
		{"contents", e.checkContents},
		{"files", e.checkFiles},
		{"scope", e.checkScope},
		{"ancestry", e.checkAncestry},
		{"freshness", e.checkFreshness},
		{"clock", e.checkClock},
	} {
		evidence, err := step.do()
		if err != nil {
			evidence = err.Error()
		}
		e.v.checks = append(e.v.checks, Check{Name: step.name, OK: err == nil, Evidence: evidence})
		if err != nil {
			return nil, e.v.checks, err
		}
	}
	e.v.revision, e.v.rewritten, e.v.trust = e.raw.Revision, e.raw.Rewritten, e.trust.Version
	return e.v, e.v.checks, nil
}

// examination is one run of Verify; each method is one check and answers its evidence.
type examination struct {
	raw      *Raw
	trust    *Trust
	seen     Seen
	now      time.Time
	held     bool
	known    *Verified // what this process found the same document and files to be, or nil
	verifier signatureVerifier
	v        *Verified
}

func (e *examination) checkTrust() (string, error) {
	if e.trust == nil || e.raw == nil || e.raw.FS == nil {
		return "", refuse(ErrTrust, "there is no trust or no release to check")
	}
	if err := e.trust.validate(); err != nil {
		return "", err
	}
	return fmt.Sprintf("version %d of fleet %s, channel %s: %d signers, audit needs %d, enforce %d", e.trust.Version,
		e.trust.Fleet, e.trust.Channel, len(e.trust.Signers), e.trust.Threshold.Audit, e.trust.Threshold.Enforce), nil
}

func (e *examination) readDocument() (string, error) {
	doc, err := readBounded(e.raw.FS, ReleasePath, maxReleaseDoc)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", refuse(ErrNoRelease, "there is no %s", ReleasePath)
	case err != nil:
		return "", asRefusal(err, ReleasePath)
	case len(doc) > maxReleaseDoc:
		return "", refuse(ErrLimits, "release.json is larger than %d bytes", maxReleaseDoc)
	}
	e.v.doc, e.v.digest = doc, DigestOf(doc)
	return fmt.Sprintf("%d bytes, %s", len(doc), e.v.digest), nil
}

func asRefusal(err error, what string) error {
	if _, ok := errors.AsType[*Refusal](err); ok {
		return err
	}
	return refuse(ErrAltered, "%s cannot be read", what).because(err)
}

// checkSignatures counts distinct trusted keys over the raw bytes of release.json.
func (e *examination) checkSignatures() (string, error) {
	files, err := readSignatures(e.raw.FS, SignaturesDir, signatureExt)
	if err != nil {
		return "", err
	}
	if e.v.artifact, err = readArtifact(e.raw.FS); err != nil {
		return "", err
	}
	evidence, problems := e.count(files, e.whoSigned)
	if a := e.v.artifact; a != nil {
		more, wrong := e.count(a.signatures, e.whoSignedArtifact)
		evidence, problems = append(evidence, more...), append(problems, wrong...)
	}
	if len(evidence)+len(problems) == 0 {
		return "", refuse(ErrUnsigned, "%s has no *%s", SignaturesDir, signatureExt)
	}
	slices.Sort(e.v.signers)
	e.v.signatures = files
	n, th := len(e.v.signers), e.trust.Threshold
	switch {
	case n >= th.Enforce:
		e.v.level = LevelEnforce
	case n >= th.Audit:
		e.v.level = LevelAudit
	default:
		return "", tooFew(n, th.Audit, e.v.signers, problems)
	}
	slices.Sort(evidence)
	parts := []string{fmt.Sprintf("%d of %d needed for enforce (%s): level %s", n, th.Enforce, strings.Join(evidence, "; "), e.v.level)}
	for _, p := range problems {
		parts = append(parts, "not counted: "+p.Error())
	}
	return strings.Join(parts, "; "), nil
}

// count notes who made these signatures; a signer counts once, however many there are.
func (e *examination) count(files []signatureFile, who func(signatureFile) (*Signer, string, error)) (evidence []string, problems []error) {
	for _, f := range files {
		s, how, err := who(f)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if !slices.Contains(e.v.signers, s.Name) {
			e.v.signers = append(e.v.signers, s.Name)
			evidence = append(evidence, s.Name+": "+how)
		}
	}
	return evidence, problems
}

// tooFew names the refusal after what kept signatures from counting, when that is one thing.
func tooFew(n, want int, signers []string, problems []error) error {
	kind := ErrTooFewSigners
	if n == 0 && len(problems) > 0 {
		kind = kindOf(problems[0])
		for _, p := range problems {
			if kindOf(p) != kind {
				kind = ErrTooFewSigners
			}
		}
		if kind == ErrBadSignature {
			kind = ErrTooFewSigners
		}
	}
	r := refuse(kind, "%d of %d trusted signers (%s)", n, want, strings.Join(signers, ", "))
	return r.because(errors.Join(problems...))
}

func kindOf(err error) *Kind {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.kind
	}
	return ErrBadSignature
}

// whoSigned answers the trusted, unrevoked signer of one signature file, and the evidence. Neither the file's
// name nor the hint in the bundle decides: only a key or an identity that verifies does.
func (e *examination) whoSigned(f signatureFile) (*Signer, string, error) {
	if f.err != nil {
		return nil, "", asRefusal(f.err, f.name)
	}
	b, err := parseSigBundle(f.name, f.data)
	if err != nil {
		return nil, "", err
	}
	if !b.claims(e.v.doc) {
		return nil, "", refuse(ErrAltered, "%s is over another document", f.name)
	}
	s, how, err := signedBy(e.verifier, b, e.v.doc, e.trust.Signers)
	if err == nil && e.trust.RevokedKey(s.id) {
		err = refuse(ErrRevoked, "%s: the key of %s is revoked", f.name, s.Name)
	}
	return s, how, err
}

// signedBy answers which of the signers made b over doc. When none did, the error is the one that says most.
func signedBy(v signatureVerifier, b *sigBundle, doc []byte, signers []Signer) (*Signer, string, error) {
	var most error
	for i := range signers {
		how, err := v.verifyBundle(b, doc, &signers[i])
		if err == nil {
			return &signers[i], how, nil
		}
		if most == nil || kindOf(most) == ErrBadSignature {
			most = err
		}
	}
	if most == nil || kindOf(most) == ErrBadSignature {
		return nil, "", refuse(ErrBadSignature, "%s verifies with no trusted key", b.file)
	}
	return nil, "", most
}

func (e *examination) checkRevokedRelease() (string, error) {
	if e.trust.revokedRelease(e.v.digest) {
		return "", refuse(ErrRevoked, "the release %s is revoked", e.v.digest)
	}
	return fmt.Sprintf("not among %d revoked", len(e.trust.Revoked.Releases)), nil
}

func (e *examination) decode() (string, error) {
	r := &Release{}
	var err error
	if e.known != nil && e.known.digest == e.v.digest {
		r = &e.known.release
	} else if r, err = decodeRelease(e.v.doc); err != nil {
		return "", err
	}
	e.v.release = *r
	return fmt.Sprintf("schema %s, RFC 8785, made from commit %s", r.Schema, r.Source.Commit), nil
}

func (e *examination) checkName() (string, error) {
	r := &e.v.release
	if r.Name != e.trust.Fleet {
		return "", refuse(ErrWrongFleet, "the release is for fleet %q, this host is of %q", r.Name, e.trust.Fleet)
	}
	if r.Channel != e.trust.Channel {
		return "", refuse(ErrWrongChannel, "the release is for channel %q, this host follows %q", r.Channel, e.trust.Channel)
	}
	return r.Name + ", " + r.Channel, nil
}

func (e *examination) checkMarks() (string, error) {
	r := &e.v.release
	switch {
	case e.held && r.Epoch <= e.trust.Epoch:
		return fmt.Sprintf("(%d, %d), held already", r.Epoch, r.Sequence), nil
	case r.Epoch < e.trust.Epoch:
		return "", refuse(ErrRollback, "epoch %d is below the trust's %d", r.Epoch, e.trust.Epoch)
	case r.Epoch > e.trust.Epoch:
		return "", refuse(ErrWrongEpoch, "epoch %d is above the trust's %d", r.Epoch, e.trust.Epoch)
	case r.Sequence < e.trust.MinSequence:
		return "", refuse(ErrMinSequence, "sequence %d is below the trust's minSequence %d", r.Sequence, e.trust.MinSequence)
	}
	this := Mark{Epoch: r.Epoch, Sequence: r.Sequence, Digest: e.v.digest}
	mark := e.seen.Enforce
	if e.v.level == LevelAudit {
		mark = newest(e.seen.Audit, e.seen.Enforce)
	}
	if err := this.follows(mark); err != nil {
		return "", err
	}
	if a := e.seen.Audit; e.v.level == LevelEnforce && a.Epoch == this.Epoch && a.Sequence == this.Sequence && a.Digest != this.Digest {
		e.v.note(ConditionForked, "sequence %d was seen with another digest (%s) at level audit", a.Sequence, a.Digest)
	}
	return fmt.Sprintf("(%d, %d), the %s mark is (%d, %d)", r.Epoch, r.Sequence, e.v.level, mark.Epoch, mark.Sequence), nil
}

// checkContents refuses what asks for more than this version does. What an earlier version accepted goes on.
func (e *examination) checkContents() (string, error) {
	for _, f := range e.v.release.Files {
		if p := policies.Unsupported(f.Path); p != nil && !e.held {
			return "", refuse(ErrUnsupported, "%s: %s", f.Path, p.Message).withHint(p.Hint)
		}
	}
	return "nothing that this version does not do", nil
}

func (e *examination) checkFiles() (string, error) {
	if k := e.known; k != nil && k.digest == e.v.digest {
		e.v.files, e.v.stored, e.v.set = k.files, k.stored, k.set
	} else {
		files, err := readListed(e.raw.FS, e.v.release.Files)
		if err != nil {
			return "", asRefusal(err, "a listed file")
		}
		e.v.files = files
	}
	var total int64
	for _, f := range e.v.release.Files {
		total += f.Size
	}
	return fmt.Sprintf("%d files, %d bytes, each with its signed size and sha256", len(e.v.release.Files), total), nil
}

// checkSuccession goes on with the newest trust that the release leads to.
func (e *examination) checkSuccession() (string, error) {
	next, links, err := Succeed(e.raw.FS, e.trust)
	if err != nil {
		return "", err
	}
	if next.Version < e.seen.Trust {
		return "", refuse(ErrTrustRollback, "version %d was in force here, this is %d", e.seen.Trust, next.Version)
	}
	if len(links) == 0 {
		return "no successor of the trust file", nil
	}
	before := e.trust.Version
	e.trust = next
	return fmt.Sprintf("from version %d to %d, each signed by enough of both sides", before, next.Version), nil
}

func (e *examination) checkAncestry() (string, error) {
	// Only enough signers of the trust file raise the epoch: with it they may begin the history anew.
	required := e.trust.RequireAncestry && e.v.release.Epoch <= newest(e.seen.Enforce, e.seen.Audit).Epoch
	if !e.raw.Rewritten {
		if e.raw.AncestryUnknown != nil && required {
			return "", refuse(ErrAncestry, "revision %s", e.raw.Revision).because(e.raw.AncestryUnknown)
		}
		return "not known to be rewritten", nil
	}
	if required {
		return "", refuse(ErrRewritten, "revision %s does not descend from the one before", e.raw.Revision)
	}
	e.v.note(ConditionRewritten, "revision %s does not descend from the one before", e.raw.Revision)
	return "the history was rewritten: reported", nil
}

func (e *examination) checkClock() (string, error) {
	if back := e.seen.Clock.Sub(e.now); !e.seen.Clock.IsZero() && back > clockSlack {
		e.v.note(ConditionClockBackwards, "the clock is %s behind where it was", back.Round(time.Second))
	}
	if ahead := e.v.release.Issued.Sub(e.now); ahead > clockSlack {
		e.v.note(ConditionFutureIssued, "the release was issued %s in the future", ahead.Round(time.Second))
	}
	return fmt.Sprintf("issued %s, floor %s", e.v.release.Issued.Format(time.RFC3339), e.clock().UTC().Format(time.RFC3339)), nil
}

// clock is the floor of TRUST: the latest of wall clock, last seen and newest accepted issued.
func (e *examination) clock() time.Time {
	return latest(e.now, e.seen.Floor, e.v.release.Issued)
}

func latest(ts ...time.Time) time.Time {
	return slices.MaxFunc(ts, time.Time.Compare)
}
