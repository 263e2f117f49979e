// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// checkFreshness never refuses: a stale release stays enforced and is reported Stale.
func (e *examination) checkFreshness() (string, error) {
	f := e.trust.Freshness
	if f == nil {
		return "the trust does not ask for it", nil
	}
	fresh, signer, err := e.readFresh()
	if err == nil {
		err = fresh.current(e.v, e.clock(), time.Duration(f.MaxAge))
	}
	if err != nil {
		e.v.note(ConditionStale, "%v", err)
		return "stale: " + err.Error(), nil
	}
	return fmt.Sprintf("issued %s by %s, until %s", fresh.Issued.Format(time.RFC3339), signer, fresh.Expires.Format(time.RFC3339)), nil
}

// readFresh verifies fresh.json over its raw bytes before parsing it.
func (e *examination) readFresh() (*Fresh, string, error) {
	doc, err := readBounded(e.raw.FS, FreshPath, maxFreshDoc)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", errors.New("there is no " + FreshPath)
	}
	if err != nil || len(doc) > maxFreshDoc {
		return nil, "", fmt.Errorf("%s cannot be read within %d bytes", FreshPath, maxFreshDoc)
	}
	sig, err := readBounded(e.raw.FS, FreshSigPath, maxSignature)
	if err != nil || len(sig) > maxSignature {
		return nil, "", fmt.Errorf("%s cannot be read within %d bytes", FreshSigPath, maxSignature)
	}
	e.v.fresh, e.v.freshSig = doc, sig
	signer, err := e.freshSigner(doc, sig)
	if err != nil {
		return nil, "", err
	}
	f, err := decodeFresh(doc)
	return f, signer, err
}

func (e *examination) freshSigner(doc, sig []byte) (string, error) {
	b, err := parseSigBundle(FreshSigPath, sig)
	if err != nil {
		return "", err
	}
	for i := range e.trust.Freshness.Signers {
		s := &e.trust.Freshness.Signers[i]
		if e.trust.RevokedKey(s.id) {
			continue
		}
		if _, err := e.verifier.verifyBundle(b, doc, s); err == nil {
			return s.Name, nil
		}
	}
	return "", refuse(ErrBadSignature, "%s verifies with no freshness key", FreshSigPath)
}

// current says why f does not vouch for v at this time, or nil.
func (f *Fresh) current(v *Verified, clock time.Time, maxAge time.Duration) error {
	switch {
	case f.Release != v.digest || f.Sequence != v.release.Sequence:
		return fmt.Errorf("fresh.json vouches for %s (sequence %d), not for this release", f.Release, f.Sequence)
	case !clock.Before(f.Expires):
		return fmt.Errorf("fresh.json expired at %s", f.Expires.Format(time.RFC3339))
	case f.Issued.Sub(clock) > clockSlack:
		// Who had the key for an hour could else vouch for years.
		return fmt.Errorf("fresh.json was issued in the future, at %s", f.Issued.Format(time.RFC3339))
	case clock.Sub(f.Issued) > maxAge:
		return fmt.Errorf("fresh.json is older than %s", maxAge)
	}
	return nil
}
