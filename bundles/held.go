// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"errors"
	"slices"
	"time"
)

// verifyHeld verifies a release that this host accepted before; known is what it was found to be by this process, or nil. What says how new a release must be does not
// apply: an older one is held where a newer one was revoked, or because nothing newer came since the epoch rose.
//
// Signers who were replaced and not revoked go on vouching for what they signed in their time: otherwise a host that
// reboots between a new trust file and the first release under it would have nothing. Revocations hold, and so does
// everything else of the trust in force; that its own signers do not suffice is reported.
func verifyHeld(raw *Raw, known *Verified, trust *Trust, seen Seen, now time.Time) (*Verified, error) {
	v, err := verifyHeldBy(raw, known, trust, seen, now)
	if err == nil && v.level == LevelEnforce || errors.Is(err, ErrRevoked) || trust == nil {
		return v, err
	}
	revoked := trust.Revoked
	for t := trust; t.before != nil && (err != nil || v.level != LevelEnforce); t = t.before {
		old := t.before
		then := *trust
		then.Signers, then.Threshold, then.Commits, then.Attestations = old.Signers, old.Threshold, old.Commits, old.Attestations
		revoked = revoked.and(old.Revoked)
		then.Revoked = revoked
		was, oldErr := verifyHeldBy(raw, known, &then, seen, now)
		if oldErr == nil && (err != nil || was.level == LevelEnforce) {
			was.note(ConditionDistrusted, "signed by enough signers of trust version %d (%s), not of version %d that is in force", old.Version, was.level, trust.Version)
			v, err = was, nil
		}
	}
	return v, err
}

func verifyHeldBy(raw *Raw, known *Verified, trust *Trust, seen Seen, now time.Time) (*Verified, error) {
	clock := Seen{Floor: seen.Floor, Clock: seen.Clock}
	e := &examination{raw: raw, trust: trust, seen: clock, now: now, held: true, known: known, verifier: cosignVerifier{}, v: &Verified{}}
	v, _, err := e.run()
	return v, err
}

// and is both lists of what is revoked.
func (r Revoked) and(o Revoked) Revoked {
	return Revoked{Keys: slices.Concat(r.Keys, o.Keys), Releases: slices.Concat(r.Releases, o.Releases)}
}
