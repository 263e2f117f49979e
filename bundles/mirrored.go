// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Judge is a Source that wants to know what became of a revision that it gave, and that has something to report.
type Judge interface {
	// Judged is told after a revision was verified, and again when that changes with time.
	Judged(rev Revision, refusal error, stale bool)
	// Conditions are what is worth a line in the report.
	Conditions() []SourceCondition
}

// SourceCondition is something about where releases come from, rather than about a release.
type SourceCondition struct {
	Type    string
	Message string
	Since   time.Time
}

// Member is one of several sources of the same channel.
type Member struct {
	Name   string // its URL, without secrets
	Source Source
}

// The conditions that a mirrored source reports.
const (
	ConditionMirrorFailed  = "MirrorFailed"  // it cannot be reached
	ConditionMirrorRefused = "MirrorRefused" // it offers what this host refuses: it lies, lags or is broken
)

// The shortest and the longest wait after failures of one member; others do not wait for it.
const (
	mirrorLeast = 5 * time.Second
	mirrorMost  = 10 * time.Minute
)

// Mirrored is several sources as one. The first that works is asked, and nobody else; the next ones only when those
// before failed, or when what they have is stale or refused. Each member has its own limits (it is a Source of its
// own), its own back-off, and its share of the time of a look: one that is slow does not take the others' time.
type Mirrored struct {
	now   func() time.Time
	calls sync.Mutex // one look or fetch at a time

	mu      sync.Mutex // the members' fields; never held while somebody is asked
	members []*member
}

type member struct {
	Member
	rev      Revision // that it has now
	judged   Revision // that the verdict is about
	refusal  error
	stale    bool
	failure  error
	failures int
	since    time.Time // of the failure or the refusal
	next     time.Time // it is not asked before
}

// NewMirrored answers the members as one source; the first is the one to prefer.
func NewMirrored(members []Member, now func() time.Time) *Mirrored {
	m := &Mirrored{now: now}
	for _, one := range members {
		m.members = append(m.members, &member{Member: one})
	}
	return m
}

// Latest answers the revision of the first member whose word is good; when nobody's is, that of the first who answers.
func (m *Mirrored) Latest(ctx context.Context) (Revision, error) {
	m.calls.Lock()
	defer m.calls.Unlock()
	second, last := Revision(""), Revision("")
	var problems []error
	for i, one := range m.members {
		if err := m.leaveAlone(one); err != nil {
			problems = append(problems, err)
			continue
		}
		rev, err := one.latest(ctx, len(m.members)-i)
		if err != nil {
			m.fail(one, err)
			problems = append(problems, fmt.Errorf("%s: %w", one.Name, err))
			continue
		}
		switch m.offers(one, rev) {
		case verdictGood:
			return rev, nil
		case verdictStale:
			second = cmp.Or(second, rev)
		case verdictRefused:
			last = cmp.Or(last, rev)
		}
	}
	// Nobody's word is good: what is stale is better than nothing, and what is refused is refused again, by its name.
	if rev := cmp.Or(second, last); rev != "" {
		return rev, nil
	}
	return "", errors.Join(problems...)
}

type verdict int

const (
	verdictGood verdict = iota // or nothing is known yet
	verdictStale
	verdictRefused
)

// leaveAlone answers why a member is not asked now.
func (m *Mirrored) leaveAlone(one *member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.now().Before(one.next) {
		return nil
	}
	return fmt.Errorf("%s is left alone until %s: %w", one.Name, one.next.UTC().Format(time.RFC3339), one.failure)
}

// offers notes what a member has now, and answers what is known of it.
func (m *Mirrored) offers(one *member, rev Revision) verdict {
	m.mu.Lock()
	defer m.mu.Unlock()
	one.failures, one.failure, one.next, one.rev = 0, nil, time.Time{}, rev
	switch {
	case one.judged != rev:
		return verdictGood
	case one.refusal != nil:
		return verdictRefused
	case one.stale:
		return verdictStale
	}
	return verdictGood
}

// latest asks one member within its share of what time is left for it and those behind it.
func (one *member) latest(ctx context.Context, sharing int) (Revision, error) {
	if deadline, ok := ctx.Deadline(); ok && sharing > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(sharing))
		defer cancel()
	}
	return one.Source.Latest(ctx)
}

func (m *Mirrored) fail(one *member, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wait := mirrorMost
	if one.failures < 8 {
		wait = min(mirrorLeast<<one.failures, mirrorMost)
	}
	if one.failures == 0 {
		one.since = m.now()
	}
	one.failures++
	one.failure, one.next = err, m.now().Add(wait)
}

// Fetch brings a revision from the member that has it.
func (m *Mirrored) Fetch(ctx context.Context, rev Revision) (*Raw, error) {
	m.calls.Lock()
	defer m.calls.Unlock()
	var problems []error
	for _, one := range m.members {
		if !m.has(one, rev) {
			continue
		}
		raw, err := one.Source.Fetch(ctx, rev)
		if err == nil {
			return raw, nil
		}
		m.fail(one, err)
		problems = append(problems, fmt.Errorf("%s: %w", one.Name, err))
	}
	if len(problems) == 0 {
		return nil, fmt.Errorf("no source has revision %s any more", rev)
	}
	return nil, errors.Join(problems...)
}

func (m *Mirrored) has(one *member, rev Revision) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return one.rev == rev && one.failure == nil
}

// Judged implements Judge.
func (m *Mirrored) Judged(rev Revision, refusal error, stale bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.members {
		if one.rev == rev {
			if one.judged != rev || one.refusal == nil {
				one.since = m.now()
			}
			one.judged, one.refusal, one.stale = rev, refusal, stale
		}
	}
}

// Accepted implements Follower. All members are told, whoever brought it: a mirror has the same history.
func (m *Mirrored) Accepted(rev Revision, kept *Kept) {
	for _, one := range m.members {
		if f, wants := one.Source.(Follower); wants {
			f.Accepted(rev, kept)
		}
	}
}

// Conditions implements Judge: which members fail, and which offer what is refused.
func (m *Mirrored) Conditions() []SourceCondition {
	m.mu.Lock()
	defer m.mu.Unlock()
	failed, refused := SourceCondition{Type: ConditionMirrorFailed}, SourceCondition{Type: ConditionMirrorRefused}
	for _, one := range m.members {
		switch {
		case one.failure != nil:
			failed.add(one, one.failure.Error())
		case one.refusal != nil && one.judged == one.rev:
			refused.add(one, "offers a release that is refused: "+one.refusal.Error())
		}
	}
	var out []SourceCondition
	for _, c := range []SourceCondition{failed, refused} {
		if c.Message != "" {
			out = append(out, c)
		}
	}
	return out
}

func (c *SourceCondition) add(one *member, what string) {
	if c.Message != "" {
		c.Message += "; "
	}
	c.Message += one.Name + " " + what
	if c.Since.IsZero() || one.since.Before(c.Since) {
		c.Since = one.since
	}
}

var (
	_ Source   = (*Mirrored)(nil)
	_ Judge    = (*Mirrored)(nil)
	_ Follower = (*Mirrored)(nil)
)
