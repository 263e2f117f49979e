// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"cmp"
	"slices"
	"time"
)

func (m Mark) less(o Mark) bool {
	return m.Epoch < o.Epoch || m.Epoch == o.Epoch && m.Sequence < o.Sequence
}

func newest(a, b Mark) Mark {
	if a.less(b) {
		return b
	}
	return a
}

// follows refuses what a host that holds mark must not accept. The zero mark accepts everything.
func (m Mark) follows(mark Mark) error {
	switch {
	case mark == Mark{}:
		return nil
	case m.less(mark):
		return refuse(ErrRollback, "(epoch %d, sequence %d) is below the accepted (%d, %d)", m.Epoch, m.Sequence, mark.Epoch, mark.Sequence)
	case m.Epoch == mark.Epoch && m.Sequence == mark.Sequence && mark.Digest != "" && m.Digest != mark.Digest:
		return refuse(ErrForked, "sequence %d was accepted with digest %s, this is %s", m.Sequence, mark.Digest, m.Digest)
	case m.Epoch == mark.Epoch && m.Sequence-mark.Sequence > maxJump:
		return refuse(ErrSequenceJump, "from %d to %d, more than %d", mark.Sequence, m.Sequence, maxJump)
	}
	return nil
}

// Advance answers what the host remembers after it accepted v at this time. It never goes back.
func (v *Verified) Advance(seen Seen, now time.Time) Seen {
	now = now.UTC().Round(0) // a monotonic reading would be compared instead of what the clock shows
	this := Mark{Epoch: v.release.Epoch, Sequence: v.release.Sequence, Digest: v.digest}
	seen.Floor = latest(seen.Floor, now).UTC()
	if v.level == LevelEnforce {
		seen.Enforce = advance(seen.Enforce, this)
		// The word of too few signers does not move the clock: one key could else make everything stale for good.
		seen.Floor = latest(seen.Floor, v.release.Issued).UTC()
	}
	seen.Audit = advance(seen.Audit, this)
	seen.Trust, seen.Revision = max(seen.Trust, v.trust), v.revision
	seen.Of = v.release.Name + "/" + v.release.Channel
	seen.Clock = now
	return seen
}

// advance prefers the new mark on a tie, because a floor recovered without its digest has none.
func advance(old, this Mark) Mark {
	if this.less(old) {
		return old
	}
	return this
}

func older(a, b *Verified) int {
	return cmp.Or(cmp.Compare(a.release.Epoch, b.release.Epoch), cmp.Compare(a.release.Sequence, b.release.Sequence))
}

// Raise answers the higher of each of two memories of one channel.
func (s Seen) Raise(o Seen) Seen {
	s.Enforce, s.Audit = highest(s.Enforce, o.Enforce), highest(s.Audit, o.Audit)
	s.Trust, s.Floor = max(s.Trust, o.Trust), latest(s.Floor, o.Floor)
	return s
}

// highest is newest; of two of one number it is the one that knows the digest.
func highest(a, b Mark) Mark {
	if a.less(b) || a.Epoch == b.Epoch && a.Sequence == b.Sequence && a.Digest == "" {
		return b
	}
	return a
}

// RecoverSeen is the floor of TRUST for a host whose state is lost: the highest of what the cache holds and of what the
// caller knows from elsewhere (the older state file, the pinned map, the host's own last signed report). The trust's
// minSequence is a floor by itself, in Verify. The caller reports StateLost.
func RecoverSeen(cached []*Verified, floors ...Seen) Seen {
	var s Seen
	for _, v := range slices.SortedFunc(slices.Values(cached), older) {
		s = v.Advance(s, time.Time{})
	}
	s.Clock = time.Time{}
	for _, f := range floors {
		s = s.Raise(f)
	}
	return s
}
