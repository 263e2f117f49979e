// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/oci"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: bundlestest.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// world is a fleet with a channel in a registry.
type world struct {
	*wire
	fleet *bundlestest.Fleet
	trust *bundles.Trust
	clock *clock
	tip   bundles.Revision // published last
	creds oci.Credentials  // of the publisher
}

func newWorld(t testing.TB, w *wire, signers ...string) *world {
	t.Helper()
	f := bundlestest.New(t, signers...)
	return &world{wire: w, fleet: f, trust: f.Trust(t, 1, len(signers), ""), clock: newClock()}
}

func (w *world) channel(t testing.TB, keys ...*bundles.KeySigner) *oci.Channel {
	t.Helper()
	ch, err := oci.OpenChannel(oci.ChannelConfig{Reference: w.ref(":stable"), Channel: "stable", Keys: keys, Now: w.clock.now, Credentials: w.creds})
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func (w *world) source(t testing.TB, rest string) *oci.Source {
	t.Helper()
	s, err := oci.New(oci.Config{Reference: w.ref(rest), Channel: "stable", Now: w.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// publish publishes files, signed by these.
func (w *world) publish(t testing.TB, files map[string][]byte, signers ...string) *bundles.Published {
	t.Helper()
	var keys []*bundles.KeySigner
	for _, s := range signers {
		keys = append(keys, w.fleet.Keys[s])
	}
	p, err := bundles.Publish(t.Context(), w.channel(t, keys...), bundles.PublishOptions{
		Trust: w.trust, Now: w.clock.now(), Keys: keys,
		Content: bundles.Content{Files: files, Commit: bundlestest.Commit, Issued: bundlestest.Issued()},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.tip = p.Revision
	return p
}

func (w *world) verify(t *testing.T, s bundles.Source) (*bundles.Verified, error) {
	t.Helper()
	rev, err := s.Latest(t.Context())
	if err != nil {
		return nil, err
	}
	raw, err := s.Fetch(t.Context(), rev)
	if err != nil {
		return nil, err
	}
	return bundles.Verify(raw, w.trust, bundles.Seen{}, w.clock.now())
}

func (w *world) accepted(t *testing.T, s bundles.Source) *bundles.Verified {
	t.Helper()
	v, err := w.verify(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestRoundTrip: published, followed by tag, range and digest, changed, approved, polled.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for name, start := range registries(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, start(t), "alice", "bob")
			first := w.publish(t, bundlestest.Files(), "alice")
			if again := w.publish(t, bundlestest.Files(), "alice"); again.Changed {
				t.Errorf("publishing the same again changed something: %+v", again)
			}
			byTag, byRange, byDigest := w.source(t, ":stable"), w.source(t, "?semver=1.x"), w.source(t, "@"+string(first.Revision))
			for _, s := range []*oci.Source{byTag, byRange, byDigest} {
				v := w.accepted(t, s)
				if v.Level() != bundles.LevelAudit || v.Release().Sequence != 1 || len(v.Release().Files) != 2 {
					t.Fatalf("%+v at level %s", v.Release(), v.Level())
				}
			}
			w.unchanged(t, byTag, "HEAD /v2/acme/policy/manifests/stable")
			w.unchanged(t, byRange, "GET /v2/acme/policy/tags/list")
			w.unchanged(t, byDigest, "")

			w.approve(t, "bob")
			w.clock.pass(oci.DefaultRecheck)
			for _, s := range []*oci.Source{byTag, byRange, byDigest} {
				if v := w.accepted(t, s); v.Level() != bundles.LevelEnforce || !slices.Equal(v.Signers(), []string{"alice", "bob"}) {
					t.Errorf("after the approval: %v at level %s", v.Signers(), v.Level())
				}
			}
			byTag.Accepted(w.tip, nil)
			second := w.publish(t, map[string][]byte{"a.yaml": bundlestest.Policy("z")}, "alice")
			if second.Sequence != 2 {
				t.Errorf("the next release has sequence %d", second.Sequence)
			}
			w.descends(t, byTag)
			for what, want := range map[*oci.Source]int64{byTag: 2, byRange: 2, byDigest: 1} {
				if v := w.accepted(t, what); v.Release().Sequence != want {
					t.Errorf("sequence %d, want %d", v.Release().Sequence, want)
				}
			}
		})
	}
}

// unchanged polls ten times and counts on the wire.
func (w *world) unchanged(t *testing.T, s *oci.Source, want string) {
	t.Helper()
	before, err := s.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.take()
	var expect []string
	for range 10 {
		if want != "" {
			expect = append(expect, want)
		}
		rev, err := s.Latest(t.Context())
		if err != nil || rev != before {
			t.Fatalf("revision %s, %v; before it was %s", rev, err, before)
		}
	}
	if got := w.take(); !slices.Equal(got, expect) {
		t.Errorf("10 unchanged polls were %d requests: %q", len(got), got)
	}
}

func (w *world) approve(t *testing.T, who string) {
	t.Helper()
	ch := w.channel(t, w.fleet.Keys[who])
	review, err := bundles.NewReview(t.Context(), ch, w.trust, w.clock.now())
	if err != nil {
		t.Fatal(err)
	}
	p, err := bundles.Approve(t.Context(), ch, review, w.trust, w.fleet.Keys[who], w.clock.now())
	if err != nil || !p.Changed || p.Revision != review.Tip {
		t.Fatalf("%+v, %v", p, err)
	}
}

// descends: the next release names the one before; one that does not is known to be no descendant.
func (w *world) descends(t *testing.T, s *oci.Source) {
	t.Helper()
	for last, want := range map[bundles.Revision]bool{"": false, "sha256:" + bundles.Revision(strings.Repeat("0", 64)): true, w.tip: false} {
		s.Accepted(last, nil)
		rev, err := s.Latest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := s.Fetch(t.Context(), rev)
		if err != nil || raw.Rewritten != want || raw.AncestryUnknown != nil {
			t.Errorf("after %q: rewritten %v, unknown %v, %v", last, raw.Rewritten, raw.AncestryUnknown, err)
		}
	}
}

// BenchmarkPoll is an unchanged poll, the server's side included.
func BenchmarkPoll(b *testing.B) {
	w, s := large(b, 1)
	if _, err := s.Latest(b.Context()); err != nil {
		b.Fatal(err)
	}
	w.take()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Latest(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFetchAndVerify is a new release of 10,000 policies (15 MB), the server's side included.
func BenchmarkFetchAndVerify(b *testing.B) {
	w, s := large(b, 10_000)
	rev, err := s.Latest(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		raw, err := s.Fetch(b.Context(), rev)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := bundles.Verify(raw, w.trust, bundles.Seen{}, w.clock.now()); err != nil {
			b.Fatal(err)
		}
	}
}

func large(b *testing.B, n int) (*world, *oci.Source) {
	b.Helper()
	w := newWorld(b, serve(b, inProcess(true)), "alice")
	files := map[string][]byte{}
	for i := range n {
		files[fmt.Sprintf("d%d/p%d.yaml", i%100, i)] = append(bundlestest.Policy(fmt.Sprint("p", i)), []byte("# "+strings.Repeat(fmt.Sprintf("why %d ", i*7919), 100)+"\n")...)
	}
	w.publish(b, files, "alice")
	return w, w.source(b, ":stable")
}
