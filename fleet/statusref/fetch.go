// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/memory"
)

// limits bound what one fetch may bring. A pack is looked through before any object is built in memory, since
// a few kilobytes can claim gigabytes.
type limits struct {
	pack   int64 // bytes on the wire
	object int64 // bytes of one object, inflated and with its delta applied
	total  int64 // bytes of all objects, likewise
	count  uint32
}

// advert is what the remote says it has.
type advert struct {
	refs map[plumbing.ReferenceName]plumbing.Hash
	caps *capability.List
}

func newAdvert(ar *packp.AdvRefs) advert {
	a := advert{refs: make(map[plumbing.ReferenceName]plumbing.Hash, len(ar.References)), caps: ar.Capabilities}
	for name, hash := range ar.References {
		a.refs[plumbing.ReferenceName(name)] = hash
	}
	return a
}

// list asks for the refs. An empty repository has none.
func (r Remote) list(ctx context.Context) (advert, error) {
	t, ep, err := r.dial()
	if err != nil {
		return advert{}, fault("list", err)
	}
	s, err := t.NewUploadPackSession(ep, r.Auth)
	if err != nil {
		return advert{}, fault("list", err)
	}
	defer func() { _ = s.Close() }()
	ar, err := s.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return advert{refs: map[plumbing.ReferenceName]plumbing.Hash{}}, nil
	}
	if err != nil {
		return advert{}, fault("list", err)
	}
	return newAdvert(ar), nil
}

// fetch brings exactly the wanted commits, one deep, into store.
func (r Remote) fetch(ctx context.Context, a advert, wants []plumbing.Hash, lim limits, store *memory.Storage) error {
	if len(wants) == 0 {
		return nil
	}
	t, ep, err := r.dial()
	if err != nil {
		return fault("fetch", err)
	}
	s, err := t.NewUploadPackSession(ep, r.Auth)
	if err != nil {
		return fault("fetch", err)
	}
	defer func() { _ = s.Close() }()
	req := packp.NewUploadPackRequestFromCapabilities(a.caps)
	req.Wants = wants
	if a.caps.Supports(capability.Shallow) {
		req.Depth = packp.DepthCommits(1)
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return fault("fetch", err)
		}
	}
	res, err := s.UploadPack(ctx, req)
	if err != nil {
		return fault("fetch", err)
	}
	defer func() { _ = res.Close() }()
	pack, err := readPack(res, req.Capabilities, lim.pack)
	if err != nil {
		return fault("fetch", err)
	}
	if err := inspectPack(pack, lim); err != nil {
		return fault("fetch", err)
	}
	if err := packfile.UpdateObjectStorage(store, bytes.NewReader(pack)); err != nil {
		return fault("fetch", fmt.Errorf("pack: %w", err))
	}
	return nil
}

func readPack(r io.Reader, caps *capability.List, limit int64) ([]byte, error) {
	switch {
	case caps.Supports(capability.Sideband64k):
		r = sideband.NewDemuxer(sideband.Sideband64k, r)
	case caps.Supports(capability.Sideband):
		r = sideband.NewDemuxer(sideband.Sideband, r)
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: pack of more than %d bytes", ErrLimits, limit)
	}
	return b, nil
}

// inspectPack reads the sizes that a pack claims, deltas included, without keeping anything.
func inspectPack(pack []byte, lim limits) error {
	s := packfile.NewScanner(bytes.NewReader(pack))
	_, n, err := s.Header()
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	if n > lim.count {
		return fmt.Errorf("%w: pack of %d objects, limit %d", ErrLimits, n, lim.count)
	}
	var total int64
	for range n {
		size, err := claimedSize(s, lim.object)
		if err != nil {
			return err
		}
		if total += size; total > lim.total {
			return fmt.Errorf("%w: objects of more than %d bytes together", ErrLimits, lim.total)
		}
	}
	return nil
}

// claimedSize is the size of the next object: of a delta, what it and its result need together.
func claimedSize(s *packfile.Scanner, limit int64) (int64, error) {
	h, err := s.NextObjectHeader()
	if err != nil {
		return 0, fmt.Errorf("pack: %w", err)
	}
	if h.Length > limit {
		return 0, fmt.Errorf("%w: object of %d bytes, limit %d", ErrLimits, h.Length, limit)
	}
	var head headWriter
	if _, _, err := s.NextObject(&head); err != nil {
		return 0, fmt.Errorf("pack: %w", err)
	}
	if !h.Type.IsDelta() {
		return h.Length, nil
	}
	result := head.deltaResult()
	if result > uint64(limit) {
		return 0, fmt.Errorf("%w: object of %d bytes, limit %d", ErrLimits, result, limit)
	}
	return h.Length + int64(result), nil
}

// headWriter keeps the two sizes at the head of a delta: two numbers of at most ten bytes.
type headWriter struct {
	b [20]byte
	n int
}

// Write implements io.Writer.
func (w *headWriter) Write(p []byte) (int, error) {
	w.n += copy(w.b[w.n:], p)
	return len(p), nil
}

// deltaResult reads the second number, the size of the result.
func (w *headWriter) deltaResult() uint64 {
	rest := w.b[:w.n]
	var v uint64
	for range 2 {
		v = 0
		for shift := uint(0); len(rest) > 0 && shift < 64; shift += 7 {
			c := rest[0]
			rest = rest[1:]
			v |= uint64(c&0x7f) << shift
			if c&0x80 == 0 {
				break
			}
		}
	}
	return v
}
