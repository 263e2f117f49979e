// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"errors"
	"fmt"
)

// Kind is a sentinel for one way in which a release is not what it should be. Its Name is stable: metrics,
// reports and scripts rely on it.
type Kind struct { //nolint:errname // the field speaks of a refusal and its kind
	name string
	says string
	hint string
}

// Name is the machine name, e.g. "rollback".
func (k *Kind) Name() string { return k.name }

// Error says what the kind means.
func (k *Kind) Error() string { return k.says }

// The kinds of refusal. Each is matched with errors.Is.
var (
	ErrAltered        = &Kind{"altered", "the release is not what was signed", ""}
	ErrUnsigned       = &Kind{"unsigned", "the release carries no signature", "publish with muster publish, or sign with muster approve"}
	ErrTooFewSigners  = &Kind{"too-few-signers", "too few trusted signers", "another signer runs muster approve"}
	ErrWrongFleet     = &Kind{"wrong-fleet", "the release is for another fleet", ""}
	ErrWrongChannel   = &Kind{"wrong-channel", "the release is for another channel", ""}
	ErrWrongEpoch     = &Kind{"wrong-epoch", "the release is of an epoch that the trust does not know", "install the trust file that raises the epoch: muster join"}
	ErrOutOfScope     = &Kind{"out-of-scope", "the release reaches outside the scope of its trust", ""}
	ErrUnknownField   = &Kind{"unknown-field", "the document has a field that this version does not understand", "update muster on this host before publishing such releases"}
	ErrNotCanonical   = &Kind{"not-canonical", "the document is not RFC 8785 canonical JSON of its schema", ""}
	ErrMalformed      = &Kind{"malformed", "the document cannot be understood", ""}
	ErrRollback       = &Kind{"rollback", "the release is older than one that was accepted", "a wanted rollback is a new release: muster publish --rollback-to"}
	ErrForked         = &Kind{"forked", "another release with the same sequence was accepted", "publish a release with a higher sequence"}
	ErrSequenceJump   = &Kind{"sequence-jump", "the sequence jumps too far ahead", "recovery is a trust file with a higher epoch"}
	ErrPath           = &Kind{"path", "a path is not allowed in a release", "paths are ASCII letters, digits and ._/- without .., unique after case folding"}
	ErrLimits         = &Kind{"limits", "the release exceeds a limit", ""}
	ErrLegacyBundle   = &Kind{"legacy-bundle", "the signature is a legacy cosign bundle", "sign with cosign sign-blob --new-bundle-format --tlog-upload=false --bundle FILE (v2), or --use-signing-config=false --tlog-upload=false --bundle FILE (v3)"}
	ErrDSSE           = &Kind{"dsse", "a DSSE envelope (an attestation) is never a release signature", "sign .muster/release.json itself with sign-blob"}
	ErrUnsupported    = &Kind{"unsupported", "this version cannot check that", ""}
	ErrRevoked        = &Kind{"revoked", "the trust file revokes it", "publish a new release with unrevoked keys"}
	ErrMinSequence    = &Kind{"below-minimum", "the sequence is below the trust file's minSequence", ""}
	ErrRewritten      = &Kind{"history-rewritten", "the channel's history was rewritten and the trust requires ancestry", "put the channel back to where it was; a trust file with a higher epoch begins anew"}
	ErrAncestry       = &Kind{"ancestry-unknown", "nobody can say whether the release descends from the accepted one, and the trust requires it", "requireAncestry needs one Git repository or one registry, and a host that looks more often than every thousand commits; a trust file with a higher epoch begins anew"}
	ErrNoRelease      = &Kind{"no-release", "there is no release here", "publish one with muster publish"}
	ErrBadSignature   = &Kind{"bad-signature", "the signature cannot be used", ""}
	ErrWeakKey        = &Kind{"weak-key", "the key is of a kind that releases are not signed with", "use ECDSA P-256 (muster keys new) or RSA of 3072 bits or more"}
	ErrIdentity       = &Kind{"wrong-identity", "the certificate is for an identity that the trust does not name", "issuer and subject must be exactly those of trust.yaml"}
	ErrNotLogged      = &Kind{"not-logged", "the signature is in no transparency log of its trusted root", "sign with the log that the trusted root names"}
	ErrUntimed        = &Kind{"untimed", "no log and no timestamp authority of the trusted root says when the signature was made", "sign with a timestamp authority (cosign --timestamp-server-url) or a log that the trusted root names"}
	ErrCertificate    = &Kind{"untrusted-certificate", "the certificate, its time or what it signed does not hold under the trusted root", ""}
	ErrTrust          = &Kind{"trust", "the trust file is not usable", ""}
	ErrCommit         = &Kind{"unsigned-commit", "the release came with no commit or tag that the trust's commits gate takes", "publish with --git-sign-key, or sign a tag muster/<channel> whose message has the line Muster-Release: sha256:…"}
	ErrAttestation    = &Kind{"attestation", "a statement that the trust asks for is missing or does not hold", "muster lint --attest FILE and muster publish --attestation FILE; provenance must name the release's commit"}
	ErrSuccession     = &Kind{"succession", "the successor of the trust file does not follow from the one before", "a successor has the next version, the same fleet and channel, and threshold.trust signatures of both files: muster trust next"}
	ErrTrustRollback  = &Kind{"trust-rollback", "the trust file is older than one that was in force here", "install the newest trust file; it may also come with the next release"}
	ErrTorn           = &Kind{"torn", "the file is truncated or damaged", ""}
	ErrWrongPassword  = &Kind{"wrong-password", "the key does not open with this password", "set MUSTER_PASSWORD or COSIGN_PASSWORD, or give --password-file"}
	ErrMissingState   = &Kind{"no-state", "there is no state yet", ""}
	ErrPublishBlocked = &Kind{"publish", "the release cannot be published", ""}
	ErrElsewhere      = &Kind{"elsewhere", "the source leads where it has no business", "a registry in a private network is named by its own address; plain HTTP is spelled oci+http://"}
)

// ErrWire is the cause of a refusal that is about the way and not about the release: another try may go better.
var ErrWire = errors.New("what came is not what the source holds")

// Refusal is one instance: the kind, what exactly was found, and the cause if there is one.
type Refusal struct { //nolint:errname // the field speaks of a refusal and its kind
	kind   *Kind
	detail string
	hint   string
	cause  error
}

func refuse(kind *Kind, format string, args ...any) *Refusal {
	return &Refusal{kind: kind, detail: fmt.Sprintf(format, args...)}
}

// NewRefusal makes a refusal for a transport: the kinds are shared, the finding is the transport's.
func NewRefusal(kind *Kind, cause error, format string, args ...any) *Refusal {
	r := refuse(kind, format, args...)
	r.cause = cause
	return r
}

func (r *Refusal) withHint(hint string) *Refusal { r.hint = hint; return r }

func (r *Refusal) because(err error) *Refusal { r.cause = err; return r }

// Name is the stable machine name of the kind.
func (r *Refusal) Name() string { return r.kind.name }

// Error begins with the machine name.
func (r *Refusal) Error() string {
	s := r.kind.name + ": "
	if r.detail != "" {
		s += r.detail
	} else {
		s += r.kind.says
	}
	if r.cause != nil {
		s += ": " + r.cause.Error()
	}
	return s
}

// Hint is what the operator can do about it.
func (r *Refusal) Hint() string {
	if r.hint != "" {
		return r.hint
	}
	return r.kind.hint
}

// Unwrap makes errors.Is match the kind and the cause.
func (r *Refusal) Unwrap() []error {
	if r.cause != nil {
		return []error{r.kind, r.cause}
	}
	return []error{r.kind}
}

// RefusalName answers the machine name inside err, or "" when err is no refusal.
func RefusalName(err error) string {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Name()
	}
	return ""
}
