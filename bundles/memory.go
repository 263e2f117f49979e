// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// ChannelMemory is what somebody who publishes or approves remembers of a channel: whoever has the hosting can show
// an older channel, or another one, and would else be given a signature that fits it.
type ChannelMemory struct {
	path   string
	forget bool // the channel is taken as it is: its owners rewrote it
}

// NewChannelMemory answers the memory of one channel at one place, in a directory that outlives the command.
func NewChannelMemory(dir, url, channel string, forget bool) *ChannelMemory {
	sum := sha256.Sum256([]byte(url))
	return &ChannelMemory{path: filepath.Join(dir, channel+"-"+hex.EncodeToString(sum[:6])), forget: forget}
}

// shown is the content of the file.
type shown struct {
	Tip    Revision `json:"tip"`
	Newest Mark     `json:"newest"` // verified
}

const memoryMagic = "muster-channel/1"

// Remembering is ch for somebody with a memory.
func Remembering(ch Channel, memory *ChannelMemory) Channel { return &remembering{ch, memory} }

type remembering struct {
	Channel
	memory *ChannelMemory
}

// descender is a Channel that can say whether its tip, as refreshed, goes back to an older revision.
type descender interface {
	Rewritten(ctx context.Context, tip, old Revision) (rewritten bool, unknown error)
}

// recall answers what is remembered of a channel, and refuses one that does not go on from there.
func recall(ctx context.Context, ch Channel, tip Revision) (shown, error) {
	r, ok := ch.(*remembering)
	if !ok {
		return shown{}, nil
	}
	was, err := r.memory.load()
	if err != nil || was.Tip == "" || was.Tip == tip || r.memory.forget {
		return was, err
	}
	gone := refuse(ErrRewritten, "release %d at revision %s was here, and the channel does not go on from it", was.Newest.Sequence, was.Tip).
		withHint("put the channel back to that revision, or say --accept-rewritten when its owners rewrote it")
	if tip == "" {
		return was, gone
	}
	if d, can := r.Channel.(descender); can {
		// What is too far back to tell is left to the numbers: the newest one that was seen is a floor.
		if rewritten, _ := d.Rewritten(ctx, tip, was.Tip); rewritten {
			return was, gone
		}
	}
	return was, nil
}

// remember notes what the channel has now.
func remember(ch Channel, tip Revision, newestSeen Mark) error {
	r, ok := ch.(*remembering)
	if !ok || tip == "" {
		return nil
	}
	was, err := r.memory.load()
	if err != nil {
		return err
	}
	now := shown{Tip: tip, Newest: newest(was.Newest, newestSeen)}
	if now == was {
		return nil
	}
	return r.memory.save(now)
}

func (m *ChannelMemory) load() (shown, error) {
	var s shown
	data, err := readFileBounded(m.path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		var payload []byte
		if payload, err = unframe(memoryMagic, data); err == nil {
			err = decodeCanonical(m.path, payload, &s)
		}
	}
	if err != nil {
		return shown{}, refuse(ErrTorn, "%s", m.path).because(err).withHint("look at the channel yourself, and remove the file")
	}
	return s, nil
}

func (m *ChannelMemory) save(s shown) error {
	payload, err := canonical(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.path), 0o700); err != nil {
		return err
	}
	return WriteAtomic(m.path, frame(memoryMagic, payload), 0o600)
}
