// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// pusher is one conversation with receive-pack: first the refs are seen, then commands name what was seen.
type pusher struct {
	session transport.ReceivePackSession
	advert  advert
}

func (r Remote) openPush(ctx context.Context) (*pusher, error) {
	t, ep, err := r.dial()
	if err != nil {
		return nil, fault("push", err)
	}
	s, err := t.NewReceivePackSession(ep, r.Auth)
	if err != nil {
		return nil, fault("push", err)
	}
	ar, err := s.AdvertisedReferencesContext(ctx)
	if err != nil {
		_ = s.Close()
		return nil, fault("push", err)
	}
	return &pusher{session: s, advert: newAdvert(ar)}, nil
}

func (p *pusher) close() { _ = p.session.Close() }

// send pushes objects and commands. The server compares each command's old hash with what it has and swaps, or
// refuses that command. The answer holds one error for each command; the error is for all of them.
func (p *pusher) send(ctx context.Context, cmds []*packp.Command, store storer.EncodedObjectStorer, objects []plumbing.Hash) (map[plumbing.ReferenceName]error, error) {
	req := packp.NewReferenceUpdateRequestFromCapabilities(p.advert.caps)
	req.Commands = cmds
	if needsPack(cmds) {
		var pack bytes.Buffer
		// Without deltas: the objects are small, and nothing here is close to anything else in the pack.
		if _, err := packfile.NewEncoder(&pack, store, false).Encode(objects, 0); err != nil {
			return nil, fault("push", err)
		}
		req.Packfile = io.NopCloser(&pack)
	}
	status, err := p.session.ReceivePack(ctx, req)
	if status == nil {
		return nil, fault("push", err)
	}
	if status.UnpackStatus != "ok" {
		return nil, fault("push", fmt.Errorf("unpack error: %s", oneLine(status.UnpackStatus)))
	}
	answers := make(map[plumbing.ReferenceName]error, len(cmds))
	for _, c := range cmds {
		answers[c.Name] = fault("push", fmt.Errorf("the server said nothing about %s", c.Name))
	}
	for _, s := range status.CommandStatuses {
		answers[s.ReferenceName] = fault("push", s.Error())
	}
	return answers, nil
}

// needsPack: git expects a pack unless every command deletes.
func needsPack(cmds []*packp.Command) bool {
	for _, c := range cmds {
		if !c.New.IsZero() {
			return true
		}
	}
	return false
}

// oneLine keeps what a server says on one line of printable text.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return s[:min(len(s), 300)]
}
