// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
)

// place is a source that answers what a test says, and counts who asked.
type place struct {
	rev   bundles.Revision
	err   error
	slow  bool
	asked int
}

func (p *place) Latest(ctx context.Context) (bundles.Revision, error) {
	p.asked++
	if p.slow {
		<-ctx.Done()
		return "", ctx.Err()
	}
	return p.rev, p.err
}

func (p *place) Fetch(_ context.Context, rev bundles.Revision) (*bundles.Raw, error) {
	return &bundles.Raw{Revision: rev}, p.err
}

type mirrors struct {
	*bundles.Mirrored
	places []*place
	at     time.Time
}

func newMirrors(places ...*place) *mirrors {
	m := &mirrors{places: places, at: time.Unix(1_800_000_000, 0)}
	var members []bundles.Member
	for i, p := range places {
		members = append(members, bundles.Member{Name: string(rune('A' + i)), Source: p})
	}
	m.Mirrored = bundles.NewMirrored(members, func() time.Time { return m.at })
	return m
}

func (m *mirrors) expect(t *testing.T, want bundles.Revision, asked ...int) {
	t.Helper()
	for _, p := range m.places {
		p.asked = 0
	}
	rev, err := m.Latest(t.Context())
	if rev != want || (err == nil) != (want != "") {
		t.Errorf("revision %q, %v; want %q", rev, err, want)
	}
	var got []int
	for _, p := range m.places {
		got = append(got, p.asked)
	}
	if !slices.Equal(got, asked) {
		t.Errorf("asked %v, want %v", got, asked)
	}
}

func (m *mirrors) conditions() string {
	var out []string
	for _, c := range m.Conditions() {
		out = append(out, c.Type+" "+c.Message)
	}
	return strings.Join(out, "\n")
}

func TestOneSourceIsAskedWhileItsWordIsGood(t *testing.T) {
	t.Parallel()
	m := newMirrors(&place{rev: "a1"}, &place{rev: "b1"})
	m.expect(t, "a1", 1, 0)
	m.Judged("a1", nil, false)
	m.expect(t, "a1", 1, 0)
}

func TestTheNextIsAskedWhenOneFails(t *testing.T) {
	t.Parallel()
	down := errors.New("no route")
	m := newMirrors(&place{rev: "a1", err: down}, &place{rev: "b1"})
	m.expect(t, "b1", 1, 1)
	// The one that failed has a back-off of its own.
	m.expect(t, "b1", 0, 1)
	if c := m.conditions(); !strings.Contains(c, "MirrorFailed A no route") {
		t.Error(c)
	}
	m.places[0].err = nil
	m.at = m.at.Add(time.Minute)
	m.expect(t, "a1", 1, 0)
	if c := m.conditions(); c != "" {
		t.Error(c)
	}
}

func TestTheNextIsAskedWhenOneIsStaleOrRefused(t *testing.T) {
	t.Parallel()
	m := newMirrors(&place{rev: "a1"}, &place{rev: "b1"}, &place{rev: "c1"})
	m.expect(t, "a1", 1, 0, 0)
	m.Judged("a1", nil, true)
	m.expect(t, "b1", 1, 1, 0)
	m.Judged("b1", bundles.NewRefusal(bundles.ErrRollback, nil, "sequence 3"), false)
	if c := m.conditions(); !strings.Contains(c, "MirrorRefused B offers a release that is refused: rollback") {
		t.Error(c)
	}
	m.expect(t, "c1", 1, 1, 1)
	m.Judged("c1", nil, false)
	m.expect(t, "c1", 1, 1, 1)
	// Nobody has anything better: what is stale still counts.
	m.Judged("c1", bundles.NewRefusal(bundles.ErrForked, nil, ""), false)
	m.expect(t, "a1", 1, 1, 1)
	// A source that mends itself is the only one asked again.
	m.places[0].rev = "a2"
	m.expect(t, "a2", 1, 0, 0)
}

func TestWhenAllAreRefusedTheFirstIsRefusedAgain(t *testing.T) {
	t.Parallel()
	m := newMirrors(&place{rev: "a1"}, &place{rev: "b1"})
	for _, rev := range []bundles.Revision{"a1", "b1"} {
		m.expect(t, rev, map[bundles.Revision][]int{"a1": {1, 0}, "b1": {1, 1}}[rev]...)
		m.Judged(rev, bundles.NewRefusal(bundles.ErrAltered, nil, ""), false)
	}
	m.expect(t, "a1", 1, 1)
}

func TestASlowSourceHasItsShareOfTheTime(t *testing.T) {
	t.Parallel()
	m := newMirrors(&place{slow: true}, &place{rev: "b1"})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	rev, err := m.Latest(ctx)
	if rev != "b1" || err != nil || ctx.Err() != nil {
		t.Errorf("%q, %v", rev, err)
	}
}

func TestAFetchThatFailsMakesRoomForTheNext(t *testing.T) {
	t.Parallel()
	m := newMirrors(&place{rev: "a1"}, &place{rev: "b1"})
	m.expect(t, "a1", 1, 0)
	m.places[0].err = errors.New("half a pack")
	if _, err := m.Fetch(t.Context(), "a1"); err == nil {
		t.Error("the fetch succeeded")
	}
	m.expect(t, "b1", 0, 1)
	if raw, err := m.Fetch(t.Context(), "b1"); err != nil || raw.Revision != "b1" {
		t.Errorf("%v, %v", raw, err)
	}
}
