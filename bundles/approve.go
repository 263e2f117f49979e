// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rogpeppe/go-internal/diff"
)

// Review is what a second signer is asked to sign: the release, what it changes, who signed already.
type Review struct {
	Tip     Revision     `json:"tip"`
	Release *Verified    `json:"release"`
	Against *Verified    `json:"against"` // the newest release before it with enough signers for enforce; nil: there is none
	Level   Level        `json:"level"`   // what its signers suffice for now; "" for none
	Needed  int          `json:"needed"`  // more signers needed for enforce
	Changes []FileChange `json:"changes"`
}

// FileChange is one file that differs.
type FileChange struct {
	Path string `json:"path"`
	What string `json:"what"` // added, removed, changed
	Diff string `json:"diff,omitempty"`
}

// NewReview reads the channel's tip for approval. Every check of Verify holds but the thresholds.
func NewReview(ctx context.Context, ch Channel, t *Trust, now time.Time) (*Review, error) {
	tip, err := ch.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	if tip == "" {
		if _, err := recall(ctx, ch, tip); err != nil {
			return nil, err
		}
		return nil, refuse(ErrNoRelease, "the channel does not exist yet")
	}
	h, err := readHistory(ctx, ch, tip, t, nil, now, historyDepth)
	if err != nil {
		return nil, err
	}
	if h.tipRelease == nil {
		return nil, refuse(ErrPublishBlocked, "the channel's tip is no release to approve: %s", h.tipProblem)
	}
	v := h.tipRelease
	if v.release.Sequence < h.highest {
		return nil, refuse(ErrRollback, "the channel's tip is release %d; %d was published before", v.release.Sequence, h.highest)
	}
	r := &Review{Tip: tip, Release: v, Against: h.lastEnforced(v)}
	switch n := len(v.signers); {
	case n >= t.Threshold.Enforce:
		r.Level = LevelEnforce
	case n >= t.Threshold.Audit:
		r.Level = LevelAudit
	}
	r.Needed = max(0, t.Threshold.Enforce-len(v.signers))
	old := memFS{}
	if r.Against != nil {
		if old, err = r.Against.files.all(); err != nil {
			return nil, err
		}
	}
	next, err := v.files.all()
	if err != nil {
		return nil, err
	}
	r.Changes = changes(old, next)
	return r, nil
}

// maxDiff bounds the text of one file's difference.
const maxDiff = 64 << 10

func changes(old, next memFS) []FileChange {
	var out []FileChange
	for p, data := range next {
		before, ok := old[p]
		switch {
		case !ok:
			out = append(out, FileChange{p, "added", textDiff(p, nil, data)})
		case !bytes.Equal(before, data):
			out = append(out, FileChange{p, "changed", textDiff(p, before, data)})
		}
	}
	for p, data := range old {
		if _, ok := next[p]; !ok {
			out = append(out, FileChange{p, "removed", textDiff(p, data, nil)})
		}
	}
	slices.SortFunc(out, func(a, b FileChange) int { return bytes.Compare([]byte(a.Path), []byte(b.Path)) })
	return out
}

func textDiff(path string, before, after []byte) string {
	if len(before) > maxDiff || len(after) > maxDiff {
		return fmt.Sprintf("(%d bytes before, %d after: too large to show)\n", len(before), len(after))
	}
	return string(diff.Diff("enforced/"+path, before, "release/"+path, after))
}

// Approve adds a signature to exactly the reviewed release. When the channel moved meanwhile to another
// release, nothing is signed: it has not been reviewed.
func Approve(ctx context.Context, ch Channel, r *Review, t *Trust, key *KeySigner, now time.Time) (*Published, error) {
	by, err := newSigners(t, []*KeySigner{key}, nil)
	if err != nil {
		return nil, err
	}
	return approve(ctx, ch, r, by, now)
}

// ApproveWith is Approve by whoever stands behind sign.
func ApproveWith(ctx context.Context, ch Channel, r *Review, t *Trust, sign SignFunc, now time.Time) (*Published, error) {
	return approve(ctx, ch, r, &signers{trust: t, external: sign}, now)
}

func approve(ctx context.Context, ch Channel, r *Review, by *signers, now time.Time) (*Published, error) {
	for attempt := 1; ; attempt++ {
		p, err := approveOnce(ctx, ch, r, by, now)
		if !errors.Is(err, ErrLostRace) || attempt == publishAttempts {
			return p, err
		}
		if err := (&PublishOptions{}).wait(ctx, attempt); err != nil {
			return nil, err
		}
	}
}

func approveOnce(ctx context.Context, ch Channel, r *Review, by *signers, now time.Time) (*Published, error) {
	t := by.trust
	tip, err := ch.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := recall(ctx, ch, tip); err != nil {
		return nil, err
	}
	raw, _, err := ch.Release(tip)
	if err != nil {
		return nil, err
	}
	v, err := Verify(raw, t.anySigner(), Seen{}, now)
	if err != nil {
		return nil, err
	}
	if v.digest != r.Release.digest {
		return nil, refuse(ErrPublishBlocked, "the channel moved to release %d (%s) after the review", v.release.Sequence, v.digest).
			withHint("run muster approve again and read what changed")
	}
	files, err := readTree(raw.FS)
	if err != nil {
		return nil, err
	}
	signatures, err := by.sign(ctx, v.doc, v.signers)
	if err != nil {
		return nil, err
	}
	signers, added := slices.Clone(v.signers), len(signatures) > 0
	for name, sig := range signatures {
		files[SignatureFile(name)] = sig
		signers = append(signers, name)
	}
	slices.Sort(signers)
	p := &Published{
		Changed: added, Revision: tip, Sequence: v.release.Sequence, Epoch: v.release.Epoch, Digest: v.digest,
		Signers: signers, Files: len(v.files.list),
	}
	if !added {
		return p, nil
	}
	message := fmt.Sprintf("Approve release %d of %s/%s\n\n%s%s\n", v.release.Sequence, t.Fleet, t.Channel, ReleaseTrailer, v.digest)
	if p.Revision, err = ch.Append(ctx, tip, files, message, now); err != nil {
		return p, err
	}
	return p, remember(ch, p.Revision, v.Mark())
}
