// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// CopyRelease appends the release in raw to another channel as it is: the same document, every signature, the
// documents beside it. A channel that has the release already gets what it lacks; one that is ahead is left alone.
func CopyRelease(ctx context.Context, raw *Raw, to Channel, t *Trust, now time.Time) (*Published, error) {
	v, err := Verify(raw, t.anySigner(), Seen{}, now)
	if err != nil {
		return nil, err
	}
	files, err := readTree(raw.FS)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		p, err := copyOnce(ctx, v, files, to, t, now)
		if p != nil {
			p.Attempts = attempt
		}
		if !errors.Is(err, ErrLostRace) || attempt == publishAttempts {
			return p, err
		}
		if err := (&PublishOptions{}).wait(ctx, attempt); err != nil {
			return nil, err
		}
	}
}

func copyOnce(ctx context.Context, v *Verified, files map[string][]byte, to Channel, t *Trust, now time.Time) (*Published, error) {
	tip, err := to.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	h, err := readHistory(ctx, to, tip, t, nil, now, historyDepth)
	if err != nil {
		return nil, err
	}
	p := &Published{
		Revision: tip, Sequence: v.release.Sequence, Epoch: v.release.Epoch, Digest: v.digest,
		Signers: slices.Clone(v.signers), Files: len(v.files.list), Over: h.tipProblem,
	}
	switch there := h.tipRelease; {
	case there != nil && there.digest == v.digest:
		if files, err = missing(h.tipRaw, files); err != nil || files == nil {
			return p, err
		}
	case h.highest > v.release.Sequence:
		return nil, refuse(ErrRollback, "release %d is there already, and this is %d", h.highest, v.release.Sequence)
	case h.highest == v.release.Sequence:
		return nil, refuse(ErrForked, "another release %d is there", h.highest)
	}
	message := fmt.Sprintf("Release %d of %s/%s\n\nFrom commit %s.\n", v.release.Sequence, t.Fleet, t.Channel, v.release.Source.Commit)
	p.Changed = true
	p.Revision, err = to.Append(ctx, tip, files, message, now)
	return p, err
}

// missing joins what is there with what is to be there; nil when nothing is missing.
func missing(there *Raw, files map[string][]byte) (map[string][]byte, error) {
	out, err := readTree(there.FS)
	if err != nil {
		return nil, err
	}
	changed := false
	for name, data := range files {
		if old, ok := out[name]; (!ok || !bytes.Equal(old, data)) && !strings.HasPrefix(name, ArtifactDir+"/") {
			changed = true
		}
	}
	if !changed {
		return nil, nil
	}
	maps.Copy(out, files)
	return out, nil
}
