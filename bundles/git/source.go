// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package git moves releases through Git: hosts read one branch of one repository, publishers append to it.
//
// It decides nothing about trust. The host side speaks the pack protocol itself over go-git's encoders, so
// that bytes, objects and time are bounded before anything is unpacked, and so that it needs no home
// directory, no ssh agent and no git configuration. Protocol v0 carries every ref of the repository in each
// poll (about 70 bytes a ref): keep status refs in a repository of their own.
package git

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/muster-fleet/muster/bundles"
)

// Config is a source: where it is, which channel, how to authenticate, how much to take at most.
type Config struct {
	URL         string
	Channel     string
	Credentials Credentials
	Limits      Limits
}

// Limits bound one poll or fetch.
type Limits struct {
	Advert  int64         // bytes of the ref advertisement
	Pack    int64         // bytes of a pack on the wire
	Objects uint32        // objects in a pack
	Inflate int64         // bytes of all objects, inflated and with deltas resolved
	Time    time.Duration // of one call
}

// DefaultLimits are far above a real policy repository's.
func DefaultLimits() Limits {
	return Limits{Advert: 16 << 20, Pack: 64 << 20, Objects: 50_000, Inflate: 192 << 20, Time: 2 * time.Minute}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	if l.Advert <= 0 {
		l.Advert = d.Advert
	}
	if l.Pack <= 0 {
		l.Pack = d.Pack
	}
	if l.Objects == 0 {
		l.Objects = d.Objects
	}
	if l.Inflate <= 0 {
		l.Inflate = d.Inflate
	}
	if l.Time <= 0 {
		l.Time = d.Time
	}
	return l
}

// ErrMoved says that the branch moved between Latest and Fetch: poll again.
var ErrMoved = errors.New("the channel moved between the poll and the fetch")

// Source implements bundles.Source. It is safe for one caller at a time.
type Source struct {
	cfg    Config
	remote *remote

	mu       sync.Mutex
	accepted bundles.Revision // what the next one should descend from; "" for nothing
	kept     *bundles.Kept    // what the host has of it
	from     *base            // and what Git calls that, nil for nothing
	fetched  *base            // of what was fetched last, accepted or not
}

// Branch is the channel's branch.
func Branch(channel string) plumbing.ReferenceName {
	return plumbing.NewBranchReferenceName("muster/" + channel)
}

// TagOf is the annotated tag that may sign the channel's tip.
func TagOf(channel string) plumbing.ReferenceName {
	return plumbing.NewTagReferenceName("muster/" + channel)
}

// New answers a source; it checks the configuration and touches no network.
func New(cfg Config) (*Source, error) {
	if !bundles.ValidName(cfg.Channel) {
		return nil, fmt.Errorf("channel %q is not a name", cfg.Channel)
	}
	cfg.Limits = cfg.Limits.withDefaults()
	r, err := newRemote(cfg.URL, cfg.Credentials)
	if err != nil {
		return nil, err
	}
	return &Source{cfg: cfg, remote: r}, nil
}

// Accepted implements bundles.Follower.
func (s *Source) Accepted(rev bundles.Revision, kept *bundles.Kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted, s.kept = rev, kept
	if f := s.fetched; f != nil && f.commit.String() == string(rev) {
		s.from = f
	}
}

// Latest reads the ref advertisement, one request over HTTP, and writes nothing anywhere.
func (s *Source) Latest(ctx context.Context) (bundles.Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limits.Time)
	defer cancel()
	sess, err := s.remote.open(ctx, s.cfg.Limits)
	if err != nil {
		return "", s.explain(err)
	}
	defer sess.close()
	tip, _, err := s.tip(ctx, sess)
	if err != nil {
		return "", s.explain(err)
	}
	return bundles.Revision(tip.String()), nil
}

func (s *Source) tip(ctx context.Context, sess session) (plumbing.Hash, *packp.AdvRefs, error) {
	adv, err := sess.advert(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return plumbing.ZeroHash, nil, bundles.NewRefusal(bundles.ErrNoRelease, nil, "the repository is empty")
	}
	if err != nil {
		return plumbing.ZeroHash, nil, err
	}
	tip, ok := adv.References[Branch(s.cfg.Channel).String()]
	if !ok {
		return plumbing.ZeroHash, nil, bundles.NewRefusal(bundles.ErrNoRelease, nil, "there is no branch muster/%s", s.cfg.Channel)
	}
	return tip, adv, nil
}

// Fetch brings one commit's tree (depth 1), or what it has and the accepted one had not. When the commit is not a child of
// the one accepted before, the history is fetched too, to say whether it was rewritten; beyond historyDepth commits that
// is unknown.
func (s *Source) Fetch(ctx context.Context, rev bundles.Revision) (*bundles.Raw, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limits.Time)
	defer cancel()
	want := plumbing.NewHash(string(rev))
	from, kept := s.base(want)
	raw, commit, err := s.read(ctx, want, from, kept)
	if from != nil && errors.Is(err, plumbing.ErrObjectNotFound) {
		// What the server thinks that this host has is not what it has.
		raw, commit, err = s.read(ctx, want, nil, kept)
	}
	if err != nil {
		return nil, err
	}
	raw.Rewritten, raw.AncestryUnknown = s.ancestry(ctx, commit)
	return raw, nil
}

// base answers what may be left out of a fetch, nil for nothing, and what the host keeps.
func (s *Source) base(want plumbing.Hash) (*base, *bundles.Kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.from; f != nil && s.kept != nil && f.commit.String() == string(s.accepted) && f.commit != want {
		return f, s.kept
	}
	return nil, s.kept
}

// read fetches one revision and takes it out of the pack.
func (s *Source) read(ctx context.Context, want plumbing.Hash, from *base, kept *bundles.Kept) (*bundles.Raw, *object.Commit, error) {
	store, err := s.fetch(ctx, want, 1, from)
	if err != nil {
		return nil, nil, s.explain(err)
	}
	commit, err := store.commit(want)
	if err != nil {
		return nil, nil, bundles.NewRefusal(bundles.ErrMalformed, err, "commit %s", want)
	}
	w := store.walk(from, kept)
	w.consume = true
	if err := w.tree(commit.TreeHash, "", 0); err != nil {
		return nil, nil, err
	}
	if err := store.keepSigned(w.out, commit.Hash); err != nil {
		return nil, nil, err
	}
	w.next.commit = want
	s.mu.Lock()
	s.fetched = w.next
	s.mu.Unlock()
	return &bundles.Raw{Revision: bundles.Revision(want.String()), FS: bundles.NewPartFS(w.out, w.known, kept)}, commit, nil
}

func (s *Source) fetch(ctx context.Context, want plumbing.Hash, depth int, from *base) (*objects, error) {
	sess, err := s.remote.open(ctx, s.cfg.Limits)
	if err != nil {
		return nil, err
	}
	defer sess.close()
	tip, adv, err := s.tip(ctx, sess)
	if err != nil {
		return nil, err
	}
	if tip != want {
		return nil, fmt.Errorf("%w: %s is now at %s, not %s", ErrMoved, Branch(s.cfg.Channel).Short(), tip, want)
	}
	wants := []plumbing.Hash{want}
	// An annotated tag on the tip comes along: a trust may ask for its signature.
	tag := TagOf(s.cfg.Channel).String()
	signed, tagged := adv.References[tag]
	if tagged = tagged && adv.Peeled[tag] == want; tagged {
		wants = append(wants, signed)
	}
	ask := order{wants: wants, depth: depth}
	if from != nil {
		// One commit deeper, so that the server sees the one that is here as the parent: what both have is left out then,
		// and where it is not the parent no more than another commit comes along.
		ask.have, ask.depth = from.commit, depth+1
	}
	pack, err := sess.pack(ctx, adv, ask)
	if err != nil {
		return nil, err
	}
	o, err := unpack(pack, s.cfg.Limits)
	if err == nil && tagged {
		o.tag = signed
	}
	return o, err
}

// explain puts the repository and, for people, the credential's kind beside the error; never a secret.
func (s *Source) explain(err error) error {
	if bundles.RefusalName(err) != "" {
		return err
	}
	return fmt.Errorf("%s: %w", s.remote.shown, err)
}

var (
	_ bundles.Source   = (*Source)(nil)
	_ bundles.Follower = (*Source)(nil)
)
