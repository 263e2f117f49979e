// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Link is one succession: a trust file, and the signatures under it by name of their file.
type Link struct {
	Trust      []byte            `json:"trust"`
	Signatures map[string][]byte `json:"signatures"`
}

// signaturesSuffix ends the name of the directory with the signatures under one version of the trust file.
const signaturesSuffix = ".signatures"

func signaturesOf(version int64) string {
	return fmt.Sprintf("%s/%d%s", TrustDir, version, signaturesSuffix)
}

// TrustSignatureFile is where a signer's bundle over a version of the trust file lies in a release.
func TrustSignatureFile(version int64, signer string) string {
	return signaturesOf(version) + "/" + signer + signatureExt
}

// Succeed follows the successors of t that a release carries, one version at a time, and answers the newest trust
// with the links that lead to it. It trusts nothing else in the release, so that a revocation holds even when the
// release beside it is refused. A successor that does not follow refuses the release.
func Succeed(fsys fs.FS, t *Trust) (*Trust, []Link, error) {
	newest, err := newestTrustFile(fsys)
	if err != nil {
		return nil, nil, err
	}
	var links []Link
	for t.Version < newest {
		link, err := readLink(fsys, t.Version+1)
		if err != nil {
			return nil, nil, err
		}
		next, _, err := link.follow(t)
		if err != nil {
			return nil, nil, err
		}
		t, links = next, append(links, link)
	}
	return t, links, nil
}

// newestTrustFile is the highest version of a trust file in a release, 0 when there is none.
func newestTrustFile(fsys fs.FS) (int64, error) {
	entries, err := fs.ReadDir(fsys, TrustDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, refuse(ErrPath, "%s cannot be read", TrustDir).because(err)
	case len(entries) > 2*maxSuccessions:
		return 0, refuse(ErrLimits, "more than %d entries in %s", 2*maxSuccessions, TrustDir)
	}
	var newest int64
	for _, e := range entries {
		number, isFile := strings.CutSuffix(e.Name(), ".yaml")
		if !isFile {
			number, _ = strings.CutSuffix(e.Name(), signaturesSuffix)
		}
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil || version < 1 || strconv.FormatInt(version, 10) != number {
			return 0, refuse(ErrSuccession, "%s/%s is no version of a trust file", TrustDir, e.Name())
		}
		if isFile {
			newest = max(newest, version)
		}
	}
	return newest, nil
}

func readLink(fsys fs.FS, version int64) (Link, error) {
	link := Link{Signatures: map[string][]byte{}}
	var err error
	link.Trust, err = readBounded(fsys, TrustFile(version), maxYAML)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return link, refuse(ErrSuccession, "version %d of the trust file is missing, and later ones are there", version)
	case err != nil:
		return link, asRefusal(err, TrustFile(version))
	case len(link.Trust) > maxYAML:
		return link, refuse(ErrLimits, "%s is larger than %d bytes", TrustFile(version), maxYAML)
	}
	files, err := readSignatures(fsys, signaturesOf(version), signatureExt)
	for _, f := range files {
		if f.err == nil {
			link.Signatures[f.name] = f.data
		}
	}
	return link, err
}

// Standing is who signed a successor, and how many of which side are needed.
type Standing struct {
	Old       []string `json:"old"`
	New       []string `json:"new"`
	OldNeeded int      `json:"oldNeeded"`
	NewNeeded int      `json:"newNeeded"`
}

// Complete says that enough of both sides signed.
func (s *Standing) Complete() bool { return len(s.Old) >= s.OldNeeded && len(s.New) >= s.NewNeeded }

// follow answers the trust of this link when it is a successor of t, signed by enough signers of t and of itself.
func (l Link) follow(t *Trust) (*Trust, *Standing, error) {
	next, err := LoadTrust(l.Trust)
	if err != nil {
		return nil, nil, refuse(ErrSuccession, "the successor of trust version %d cannot be used", t.Version).because(err)
	}
	if err := next.mayFollow(t); err != nil {
		return nil, nil, err
	}
	s := l.standing(t, next)
	if !s.Complete() {
		return nil, s, refuse(ErrSuccession, "trust version %d is signed by %d of %d needed signers of version %d (%s) and by %d of %d of its own (%s)",
			next.Version, len(s.Old), s.OldNeeded, t.Version, strings.Join(s.Old, ", "), len(s.New), s.NewNeeded, strings.Join(s.New, ", "))
	}
	next.before = t
	return next, s, nil
}

// mayFollow checks what a successor says of itself. It cannot reach further than the trust before it: what a
// host gives a team is the host's to widen.
func (t *Trust) mayFollow(before *Trust) error {
	bad := func(format string, args ...any) error {
		return refuse(ErrSuccession, "trust version %d: %s", t.Version, fmt.Sprintf(format, args...))
	}
	switch {
	case t.Version != before.Version+1:
		return bad("it does not follow version %d", before.Version)
	case t.Fleet != before.Fleet || t.Channel != before.Channel:
		return bad("it is for fleet %s, channel %s, not for %s, %s", t.Fleet, t.Channel, before.Fleet, before.Channel)
	case t.Epoch < before.Epoch:
		return bad("its epoch %d is below %d", t.Epoch, before.Epoch)
	case before.Threshold.Trust < 1:
		return bad("version %d has no threshold.trust, so nobody may replace it but the host's operator", before.Version)
	case t.Threshold.Trust < 1:
		return bad("it has no threshold.trust")
	case !t.Scope.within(&before.Scope):
		return bad("its scope reaches further than that of version %d", before.Version)
	}
	return nil
}

// standing counts the signers of either side. A key that either file revokes does not count on that file's side.
func (l Link) standing(before, next *Trust) *Standing {
	s := &Standing{Old: []string{}, New: []string{}, OldNeeded: max(before.Threshold.Trust, 1), NewNeeded: max(next.Threshold.Trust, 1)}
	for _, name := range slices.Sorted(maps.Keys(l.Signatures)) {
		b, err := parseSigBundle(name, l.Signatures[name])
		if err != nil {
			continue
		}
		for t, list := range map[*Trust]*[]string{before: &s.Old, next: &s.New} {
			signer, _, err := signedBy(cosignVerifier{}, b, l.Trust, t.Signers)
			if err == nil && !t.RevokedKey(signer.id) && !slices.Contains(*list, signer.Name) {
				*list = append(*list, signer.Name)
			}
		}
	}
	slices.Sort(s.Old)
	slices.Sort(s.New)
	return s
}

// Review of a successor: whether it may follow, and who has signed so far. The error is about the file alone;
// missing signatures are none.
func (l Link) Review(before *Trust) (*Trust, *Standing, error) {
	next, s, err := l.follow(before)
	if err != nil && s == nil {
		return nil, nil, err
	}
	if next == nil {
		next, err = LoadTrust(l.Trust)
		return next, s, err
	}
	return next, s, nil
}
