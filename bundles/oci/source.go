// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package oci moves releases through OCI registries: hosts read one artifact, publishers push it.
//
// An artifact is release.json as the config and one reproducible tar+gzip layer with the listed files. What says
// something about it lies beside it and is found by its digest: signatures over release.json and cosign's signatures
// over the manifest as referrers, cosign's older ones at the tag sha256-DIGEST.sig, fresh.json and trust files at the
// tag sha256-DIGEST.muster. This package decides nothing about trust.
//
// A registry is a stranger: every operation has a budget of requests and bytes, what a redirect or an authentication
// realm leads to is checked by its resolved address, and only digests are used once a tag was resolved. Tags have no
// compare-and-swap: of two publishers at the same moment both may win (publish from one place, or from Git).
package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/muster-fleet/muster/bundles"
)

// Config is a source: which artifact, of which channel, how to authenticate, how much to take at most.
type Config struct {
	Reference   string
	Channel     string
	Credentials Credentials
	Limits      Limits
	// Recheck is how often the signatures of an unchanged artifact are listed again; approving and renewing
	// freshness move no tag.
	Recheck time.Duration
	Now     func() time.Time
}

// Limits bound one poll or fetch.
type Limits struct {
	Layer int64         // compressed bytes of the layer
	Tags  int           // tags looked at for a semver range
	Time  time.Duration // of one call
}

// DefaultLimits are far above a real policy repository's.
func DefaultLimits() Limits {
	return Limits{Layer: 32 << 20, Tags: 10_000, Time: 2 * time.Minute}
}

// DefaultRecheck keeps an unchanged poll at one request, and an approval from waiting long.
const DefaultRecheck = 5 * time.Minute

// pollRequests bounds the requests for one answer: a ping, a token, the request, redirects.
const pollRequests = 12

// Source implements bundles.Source. It is safe for one caller at a time.
type Source struct {
	cfg Config
	ref *Reference

	mu       sync.Mutex
	client   *client
	last     look
	accepted bundles.Revision // of what the host accepted last
	kept     *bundles.Kept    // and has on its disk
}

// look is what the last poll saw.
type look struct {
	tag      string // that a semver range led to
	digest   string
	revision bundles.Revision
	beside   beside
	again    time.Time
}

// New answers a source; it checks the configuration and touches no network.
func New(cfg Config) (*Source, error) {
	if !bundles.ValidName(cfg.Channel) {
		return nil, fmt.Errorf("channel %q is not a name", cfg.Channel)
	}
	ref, err := Parse(cfg.Reference)
	if err != nil {
		return nil, err
	}
	if err := cfg.Credentials.check(ref); err != nil {
		return nil, err
	}
	d := DefaultLimits()
	if cfg.Limits.Layer <= 0 {
		cfg.Limits.Layer = d.Layer
	}
	if cfg.Limits.Tags <= 0 {
		cfg.Limits.Tags = d.Tags
	}
	if cfg.Limits.Time <= 0 {
		cfg.Limits.Time = d.Time
	}
	if cfg.Recheck <= 0 {
		cfg.Recheck = DefaultRecheck
	}
	if cfg.Now == nil {
		return nil, errors.New("the source needs a clock")
	}
	return &Source{cfg: cfg, ref: ref}, nil
}

// do runs one call against the registry. When the registry stops accepting a session that worked, the credentials
// are read again, once.
func (s *Source) do(ctx context.Context, f func(context.Context, *client) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limits.Time)
	defer cancel()
	for {
		c := s.client
		if c == nil {
			var err error
			if c, err = newClient(s.ref, &s.cfg.Credentials, s.cfg.Now); err != nil {
				return explain(s.ref, err)
			}
			s.client = c
		}
		err := f(ctx, c)
		worked := c.worked
		switch {
		case rejected(err):
			c.close()
			s.client = nil
			if worked {
				continue
			}
		case err == nil:
			c.worked = true
		}
		if err != nil {
			c.close() // what was cut off in the middle is not worth keeping
		}
		return explain(s.ref, err)
	}
}

// Latest resolves the reference: one HEAD for a tag, one list of tags for a range, nothing for a digest. What lies
// beside the artifact is listed when the artifact is new, and every Recheck.
func (s *Source) Latest(ctx context.Context) (bundles.Revision, error) {
	var rev bundles.Revision
	err := s.do(ctx, func(ctx context.Context, c *client) error {
		now := s.cfg.Now()
		next, err := s.resolve(ctx, c, now)
		if err != nil {
			return err
		}
		if next.digest == s.last.digest && now.Before(s.last.again) {
			s.last.tag, rev = next.tag, s.last.revision
			return nil
		}
		if next.beside, err = c.listBeside(ctx, next.digest); err != nil {
			return err
		}
		next.revision = bundles.Revision(next.digest + "+" + next.beside.mark())
		next.again = now.Add(s.cfg.Recheck)
		s.last, rev = next, next.revision
		return nil
	})
	return rev, err
}

// resolve turns the reference into a digest, once; only the digest is used afterwards.
func (s *Source) resolve(ctx context.Context, c *client, now time.Time) (look, error) {
	switch {
	case s.ref.digest != "":
		return look{digest: s.ref.digest}, nil
	case s.ref.tag != "":
		d, err := c.head(ctx, c.byTag(s.ref.tag))
		return look{digest: d}, s.absent(err, "there is no tag "+s.ref.tag)
	}
	tags, err := c.tags(ctx, s.cfg.Limits.Tags)
	if err != nil {
		return look{}, s.absent(err, "there is no such repository")
	}
	tag := s.ref.highest(tags, s.cfg.Channel)
	if tag == "" {
		return look{}, bundles.NewRefusal(bundles.ErrNoRelease, nil, "none of %d tags is a version within the range", len(tags))
	}
	if tag == s.last.tag && now.Before(s.last.again) {
		return look{tag: tag, digest: s.last.digest}, nil // a version names one release for good
	}
	d, err := c.head(ctx, c.byTag(tag))
	return look{tag: tag, digest: d}, s.absent(err, "there is no tag "+tag)
}

func (s *Source) absent(err error, what string) error {
	if notThere(err) {
		return bundles.NewRefusal(bundles.ErrNoRelease, nil, "%s: %s", s.ref, what)
	}
	return err
}

// Fetch brings the artifact of that revision and what lies beside it.
func (s *Source) Fetch(ctx context.Context, rev bundles.Revision) (*bundles.Raw, error) {
	var raw *bundles.Raw
	err := s.do(ctx, func(ctx context.Context, c *client) error {
		digest := digestOf(rev)
		files, known, err := c.release(ctx, digest, s.cfg.Limits, s.kept)
		if err != nil {
			return err
		}
		next := s.last.beside
		if s.last.revision != rev {
			if next, err = c.listBeside(ctx, digest); err != nil {
				return err
			}
		}
		if err := c.fetchBeside(ctx, next, files); err != nil {
			return err
		}
		raw = &bundles.Raw{Revision: rev, FS: bundles.NewPartFS(files, known, s.kept)}
		raw.Rewritten, raw.AncestryUnknown = c.ancestry(ctx, digest, files[bundles.ArtifactManifestPath], s.accepted)
		return nil
	})
	return raw, err
}

// digestOf is the artifact's part of a revision; "" for a revision of another transport.
func digestOf(rev bundles.Revision) string {
	digest, _, _ := strings.Cut(string(rev), "+")
	if !strings.HasPrefix(digest, "sha256:") {
		return ""
	}
	return digest
}

// Accepted implements bundles.Follower.
func (s *Source) Accepted(rev bundles.Revision, kept *bundles.Kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted, s.kept = rev, kept
}

// ancestorsMost is how many artifacts are looked through for the one that was accepted before.
const ancestorsMost = 64

// ancestry follows what each artifact says of the one before it: the digests make a chain, as commits do.
func (c *client) ancestry(ctx context.Context, digest string, manifest []byte, before bundles.Revision) (rewritten bool, unknown error) {
	accepted := digestOf(before)
	if before == "" || accepted == digest {
		return false, nil
	}
	if accepted == "" {
		return false, fmt.Errorf("the release before came from elsewhere (%s)", before)
	}
	for range ancestorsMost {
		previous := previousOf(manifest)
		if string(previous) == accepted {
			return false, nil
		}
		if previous == "" {
			return true, nil
		}
		var err error
		if manifest, err = c.manifest(ctx, c.byDigest(string(previous))); err != nil {
			if !passedOver(err) {
				err = wire(err)
			}
			return false, fmt.Errorf("the artifact %s cannot be read: %w", previous, err)
		}
	}
	return false, fmt.Errorf("the accepted artifact is not among the last %d", ancestorsMost)
}

// release reads the artifact alone; of the files that are kept already it answers the digests.
func (c *client) release(ctx context.Context, digest string, limits Limits, kept *bundles.Kept) (map[string][]byte, map[string]bundles.Sum, error) {
	raw, err := c.manifest(ctx, c.byDigest(digest))
	if err != nil {
		return nil, nil, err
	}
	m, err := parseRelease(raw, limits)
	if err != nil {
		return nil, nil, err
	}
	doc, err := c.bytes(ctx, m.Config, maxConfig)
	if err != nil {
		return nil, nil, err
	}
	files, known, err := c.layer(ctx, m.Layers[0], kept)
	if err != nil {
		return nil, nil, err
	}
	files[bundles.ReleasePath], files[bundles.ArtifactManifestPath] = doc, raw
	return files, known, nil
}

// layer unpacks while it streams; nothing of it is kept when it does not have its digest and size.
func (c *client) layer(ctx context.Context, d v1.Descriptor, kept *bundles.Kept) (files map[string][]byte, known map[string]bundles.Sum, err error) {
	err = c.blob(ctx, d, func(r io.Reader) error {
		sized := &sizedReader{r: r}
		var err error
		if files, known, err = bundles.ReadArchiveBut(sized, bundles.Payload, kept); err != nil {
			// Whether the publisher packed it so or somebody else sends it: the rest of the bytes tells.
			if _, rest := io.Copy(io.Discard, sized); rest != nil {
				return rest
			}
			return err
		}
		if sized.n != d.Size {
			return bundles.NewRefusal(bundles.ErrAltered, nil, "the layer has %d bytes, not the %d of its manifest", sized.n, d.Size)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return files, known, nil
}

type sizedReader struct {
	r io.Reader
	n int64
}

func (s *sizedReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	return n, err
}

// tags lists the repository's tags, page by page.
func (c *client) tags(ctx context.Context, most int) ([]string, error) {
	ctx, b := withBudget(ctx, "the list of tags", pollRequests+int64(most)/100, int64(most)*(maxTag+16))
	lister, err := c.puller.Lister(ctx, c.repo)
	if err != nil {
		return nil, b.blame(err)
	}
	var out []string
	for lister.HasNext() {
		page, err := lister.Next(ctx)
		if err != nil {
			return nil, b.blame(err)
		}
		if out = append(out, page.Tags...); len(out) > most {
			return nil, bundles.NewRefusal(bundles.ErrLimits, nil, "more than %d tags", most)
		}
	}
	return out, nil
}

var (
	_ bundles.Source   = (*Source)(nil)
	_ bundles.Follower = (*Source)(nil)
)

// contains says whether a list of parts has this content already.
func contains(parts []v1.Descriptor, data []byte) bool {
	h, _, _ := v1.SHA256(bytes.NewReader(data))
	for _, d := range parts {
		if d.Digest == h {
			return true
		}
	}
	return false
}
