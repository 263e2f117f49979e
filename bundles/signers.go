// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"context"
	"maps"
	"slices"
)

// SignFunc answers a Sigstore bundle v0.3 over doc, made by something that is no key file: the stock tools with a
// certificate, a token, a key management service.
type SignFunc func(ctx context.Context, doc []byte) ([]byte, error)

// signers are who is about to sign: keys by the trust's names for them, and whoever stands behind external.
type signers struct {
	trust    *Trust
	keys     map[string]*KeySigner
	external SignFunc
}

func newSigners(t *Trust, keys []*KeySigner, external SignFunc) (*signers, error) {
	names, err := signerNames(t, keys)
	return &signers{trust: t, keys: names, external: external}, err
}

func (s *signers) none() bool { return len(s.keys) == 0 && s.external == nil }

// sign answers the bundles over doc by signer, but for those who have signed already. A bundle that the fleet's hosts
// would not count is refused here.
func (s *signers) sign(ctx context.Context, doc []byte, already []string) (map[string][]byte, error) {
	out := map[string][]byte{}
	for name, k := range s.keys {
		if slices.Contains(already, name) {
			continue
		}
		sig, err := k.Sign(ctx, doc)
		if err != nil {
			return nil, err
		}
		out[name] = sig
	}
	if s.external == nil {
		return out, nil
	}
	data, err := s.external(ctx, doc)
	if err != nil {
		return nil, err
	}
	b, err := parseSigBundle("the given bundle", data)
	if err != nil {
		return nil, err
	}
	by, _, err := signedBy(cosignVerifier{}, b, doc, s.trust.Signers)
	switch {
	case err != nil:
		return nil, err
	case s.trust.RevokedKey(by.id):
		return nil, refuse(ErrRevoked, "%s is revoked", by.Name)
	case !slices.Contains(already, by.Name):
		out[by.Name] = data
	}
	return out, nil
}

// sortedNames are the signers of these bundles.
func sortedNames(signatures map[string][]byte) []string { return slices.Sorted(maps.Keys(signatures)) }
