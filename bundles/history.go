// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"
)

const (
	// historyDepth is how many revisions a publisher looks back, deepHistory how many for an old release.
	historyDepth = 64
	deepHistory  = 4096
	// nearClaim is how far an unverified number may be ahead to be skipped over.
	nearClaim = 256
)

// history is a channel as its publisher sees it.
type history struct {
	trust      *Trust
	link       *Link // the publisher's own trust file, when it is not the channel's yet
	before     predecessors
	tip        Revision
	tipRaw     *Raw
	tipRelease *Verified // nil when the tip is no release that the trust accepts
	tipProblem string
	verified   []*Verified // newest first, each digest once
	highest    int64       // of this epoch, verified
	claimed    int64       // of this epoch, also unverified
}

func readHistory(ctx context.Context, ch Channel, tip Revision, trust *Trust, link *Link, now time.Time, depth int) (*history, error) {
	was, err := recall(ctx, ch, tip)
	if err != nil {
		return nil, err
	}
	h := &history{trust: trust, tip: tip, link: link}
	digests := map[string]bool{}
	for rev, n := tip, 0; rev != "" && n < depth; n++ {
		raw, parent, err := ch.Release(rev)
		if err != nil && RefusalName(err) == "" {
			return nil, err
		}
		if err == nil && rev == tip {
			h.tipRaw = raw
		}
		h.add(rev, raw, err, digests, now)
		rev = parent
	}
	return h, h.recall(ch, was.Newest)
}

// recall makes the newest release that was ever seen here a floor, and notes the newest there is now.
func (h *history) recall(ch Channel, was Mark) error {
	var now Mark
	for _, v := range h.verified {
		now = newest(now, v.Mark())
	}
	if was.Epoch == h.trust.Epoch {
		h.highest = max(h.highest, was.Sequence)
	}
	return remember(ch, h.tip, now)
}

// add files one revision. What does not verify is passed over: a broken or hostile tip must not keep the
// owners from publishing over it.
func (h *history) add(rev Revision, raw *Raw, err error, digests map[string]bool, now time.Time) {
	if err == nil {
		var doc []byte
		if doc, err = readBounded(raw.FS, ReleasePath, maxReleaseDoc); err == nil {
			if digests[DigestOf(doc)] && rev != h.tip {
				return
			}
			if r, e := decodeRelease(doc); e == nil && r.Epoch == h.trust.Epoch && r.Name == h.trust.Fleet && r.Channel == h.trust.Channel {
				h.claimed = max(h.claimed, r.Sequence)
			}
		} else if errors.Is(err, fs.ErrNotExist) {
			err = refuse(ErrNoRelease, "there is no %s", ReleasePath)
		}
	}
	var v *Verified
	if err == nil {
		v, err = h.verify(raw, now)
	}
	if err != nil {
		if rev == h.tip {
			h.tipProblem = err.Error()
		}
		return
	}
	if rev == h.tip {
		h.tipRelease = v
	}
	digests[v.digest] = true
	h.verified = append(h.verified, v)
	if v.release.Epoch == h.trust.Epoch {
		h.highest = max(h.highest, v.release.Sequence)
	}
}

// verify takes a release that any one signer signed, of the publisher's trust file or of one before it.
func (h *history) verify(raw *Raw, now time.Time) (*Verified, error) {
	// A stranger's tip may carry a part of the way only: the longest that any revision has is the one to go on with.
	if int64(len(h.before.trusts)) < h.trust.Version-1 {
		link := h.link
		if link == nil {
			if own, err := readLink(raw.FS, h.trust.Version); err == nil {
				link = &own
			}
		}
		if link != nil {
			if found := findPredecessors(raw.FS, h.trust, *link); len(found.trusts) > len(h.before.trusts) {
				h.before = found
			}
		}
	}
	v, err := Verify(raw, h.trust.anySigner(), Seen{}, now)
	for _, t := range h.before.trusts {
		if err == nil {
			break
		}
		if old, oldErr := Verify(withoutTrustFiles(raw), t.anySigner(), Seen{}, now); oldErr == nil {
			v, err = old, nil
		}
	}
	return v, err
}

// withoutTrustFiles is a release as it was before the trust file's successors: an earlier trust then stands by itself.
func withoutTrustFiles(raw *Raw) *Raw {
	plain := *raw
	plain.FS = hiddenDir{raw.FS, TrustDir}
	return &plain
}

// hiddenDir is a file system without one directory.
type hiddenDir struct {
	fs.FS
	dir string
}

// Open implements fs.FS.
func (h hiddenDir) Open(name string) (fs.File, error) {
	if name == h.dir || strings.HasPrefix(name, h.dir+"/") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return h.FS.Open(name)
}

// next is the sequence of the next release. An unverified release's number is skipped over when it is near, so
// that hosts never see two releases of one number; a far one is an attempt to exhaust the numbers.
func (h *history) next(override int64) (int64, error) {
	last := max(h.highest, h.trust.MinSequence-1, 0)
	if h.claimed > last && h.claimed-last <= nearClaim {
		last = h.claimed
	}
	if override != 0 {
		if override <= last {
			return 0, refuse(ErrPublishBlocked, "sequence %d is not above %d", override, last)
		}
		return override, nil
	}
	return last + 1, nil
}

// unchanged answers the newest release when it says the same already.
func (h *history) unchanged(c Content, o PublishOptions) *Published {
	v := h.tipRelease
	if v == nil || v.release.Epoch != h.trust.Epoch || v.release.Sequence != h.highest || v.release.Sequence < h.claimed || o.Sequence != 0 {
		return nil
	}
	if v.release.AcknowledgeRemoval != o.AcknowledgeRemoval && o.AcknowledgeRemoval {
		return nil
	}
	if !slices.Equal(v.release.Files, fileList(c.Files)) || !h.trustPublished(o) {
		return nil
	}
	return &Published{
		Revision: h.tip, Sequence: v.release.Sequence, Epoch: v.release.Epoch, Digest: v.digest,
		Signers: slices.Clone(v.signers), Files: len(v.files.list),
	}
}

func (h *history) trustPublished(o PublishOptions) bool {
	if len(o.TrustBytes) == 0 {
		return true
	}
	data, err := readBounded(h.tipRaw.FS, TrustFile(o.Trust.Version), maxYAML)
	return err == nil && string(data) == string(o.TrustBytes)
}

// trustChanged says that another trust file of this version was published before.
func (h *history) trustChanged(o PublishOptions) bool {
	if h.tipRaw == nil || len(o.TrustBytes) == 0 {
		return false
	}
	data, err := readBounded(h.tipRaw.FS, TrustFile(o.Trust.Version), maxYAML)
	return err == nil && string(data) != string(o.TrustBytes)
}

// lastEnforced is the newest release below the given one that had enough signers for enforce.
func (h *history) lastEnforced(below *Verified) *Verified {
	for _, v := range h.verified {
		if v.release.Epoch == below.release.Epoch && v.release.Sequence < below.release.Sequence &&
			len(v.signers) >= h.trust.Threshold.Enforce {
			return v
		}
	}
	return nil
}
