// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime/debug"
	"slices"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// restore brings back what this host accepted of a tenant before: its marks and the last good releases, all
// verified again. Nothing that is lost makes it forget how far it had come.
func (l *Loop) restore(t *tenant, now time.Time) error {
	seen, err := t.Seen.Load()
	lost := errors.Is(err, bundles.ErrTorn)
	missing := errors.Is(err, bundles.ErrMissingState)
	if err != nil && !lost && !missing {
		return fmt.Errorf("state: %w", err)
	}
	if seen.Of != "" && seen.Of != t.of() {
		l.deps.Log.Info("the state is of another fleet or channel: it begins anew", "tenant", t.Name, "was", seen.Of, "is", t.of())
		seen, lost, missing = bundles.Seen{}, false, true
	}
	if t.Lost != nil {
		l.deps.Log.Warn("successions of the trust file lost", "tenant", t.Name, "error", t.Lost)
		t.mark("StateLost", "successions of the trust file were lost: "+t.Lost.Error(), now)
	}
	cached, err := l.readCache(t, seen, now)
	if err != nil {
		return err
	}
	t.seen = l.recover(t, seen, lost, missing, cached, now)
	t.follow(t.seen.Revision)
	l.freezeIfOlder(t, now)
	t.unheard = !t.known()
	if t.whole() {
		t.pull.known = t.seen.Revision // verified again just now: fetching the same once more says nothing new
	}
	return nil
}

// whole says that nothing of what this host remembers is missing: the newest release that it accepted is held, accepted
// by the trust in force, and no succession of that is lost.
func (t *tenant) whole() bool {
	r := cmp.Or(t.audited, t.enforced)
	if r == nil || t.frozen || t.forgot || t.Lost != nil || t.Trust.Version < t.seen.Trust || r.verified.Revision() != t.seen.Revision {
		return false
	}
	return !slices.ContainsFunc(r.verified.Conditions(), func(c bundles.Condition) bool { return c.Type == bundles.ConditionDistrusted })
}

// readCache takes up the last good releases of each level.
func (l *Loop) readCache(t *tenant, seen bundles.Seen, now time.Time) ([]*bundles.Verified, error) {
	var cached []*bundles.Verified
	for _, level := range []bundles.Level{bundles.LevelEnforce, bundles.LevelAudit} {
		v, problems, err := t.Cache.Load(level, t.Trust, seen, now)
		if err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
		l.noteCache(t, level, problems, now)
		if v == nil {
			continue
		}
		cached = append(cached, v)
		l.readopt(t, v, now)
	}
	return cached, nil
}

// recover answers the marks that hold from now on: those of the state file, or the floor of everything else that
// remembers when it is lost or was set back.
func (l *Loop) recover(t *tenant, seen bundles.Seen, lost, missing bool, cached []*bundles.Verified, now time.Time) bundles.Seen {
	floor, problems := l.floors(t)
	for _, err := range problems {
		l.deps.Log.Warn("a floor for the marks cannot be read", "tenant", t.Name, "error", err)
		t.trouble(areaMemory, err, now)
	}
	// The cache is written before the marks: after a crash between the two it is a floor, too.
	held := bundles.RecoverSeen(cached)
	seen = seen.Raise(held)
	switch below := !reaches(seen, floor); {
	case lost || missing && (len(cached) > 0 || below):
		t.mark("StateLost", "the marks of accepted releases were lost and rebuilt from the cache, the kernel and the host's own reports", now)
	case below:
		t.mark("StateLost", "the marks on disk are older than what the kernel or the host's own reports tell", now)
	case seen.Revision == "": // of a version that did not keep it
		seen.Revision = held.Revision
		t.forgot = missing
		return seen
	default:
		return seen
	}
	t.forgot = true
	revision := seen.Revision
	seen = bundles.RecoverSeen(cached, seen, floor)
	seen.Trust = max(seen.Trust, t.Trust.Version)
	if revision != "" {
		seen.Revision = revision
	}
	return seen
}

// freezeIfOlder keeps the kernel as it is when the newest release that was accepted is not in the cache any
// more: what the cache still has is older than what the kernel may hold.
func (l *Loop) freezeIfOlder(t *tenant, now time.Time) {
	mark := t.seen.Enforce
	if mark == (bundles.Mark{}) || t.frozen {
		return
	}
	if t.enforced != nil {
		have := t.enforced.verified.Mark()
		if have.Epoch > mark.Epoch || (have.Epoch == mark.Epoch && have.Sequence >= mark.Sequence) {
			return
		}
	}
	t.frozen = true
	t.mark("StateLost", fmt.Sprintf("release %d was accepted and is not in the cache any more; the kernel stays as it is until the source brings it again", mark.Sequence), now)
}

// noteCache reports cached releases that cannot be used. A revoked one that may still be in the kernel stays
// there; the loop then changes nothing until a release comes that is not revoked.
func (l *Loop) noteCache(t *tenant, level bundles.Level, problems []*bundles.CacheProblem, now time.Time) {
	for _, p := range problems {
		l.deps.Log.Warn("cached release not usable", "tenant", t.Name, "file", p.File, "error", p.Err)
		if errors.Is(p.Err, bundles.ErrRevoked) && level == bundles.LevelEnforce {
			t.mark("Revoked", p.Err.Error(), now)
			t.frozen = true
		}
	}
}

// readopt parses a cached release; one that an older agent accepted and this one cannot read is left aside.
func (l *Loop) readopt(t *tenant, v *bundles.Verified, now time.Time) {
	r, err := l.parse(t, v, now)
	if err != nil {
		l.deps.Log.Error("cached release does not parse", "tenant", t.Name, "digest", v.Digest(), "error", err)
		l.refuse(t, v.Revision(), v.Digest(), err)
		return
	}
	t.place(r)
	v.Unload()
}

// parse reads everything in a verified release that this host understands, strictly.
func (l *Loop) parse(t *tenant, v *bundles.Verified, now time.Time) (*release, error) {
	var earlier *policies.Set
	if t.enforced != nil {
		earlier = t.enforced.set
	}
	content, err := Read(v, earlier, t.Name == "" && !t.Trust.Scoped())
	if err != nil {
		return nil, err
	}
	return &release{tenant: t.Name, verified: v, set: content.Policies, hosts: content.Hosts, checked: now}, nil
}

// Content is what a host understands of a release.
type Content struct {
	Policies *policies.Set
	// Hosts is who may report for which host, nil when the release does not say or may not.
	Hosts *fleet.AllowedSigners
}

// Read reads a verified release as a host does, strictly: everything or ErrPolicy. A team does not say who may report
// for the fleet's hosts. Policies of unchanged files are taken from earlier, which may be nil.
func Read(v *bundles.Verified, earlier *policies.Set, enrols bool) (c Content, err error) {
	if c.Policies, err = v.Policies(earlier); err != nil {
		return Content{}, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	if !enrols {
		return c, nil
	}
	if c.Hosts, err = fleet.Enrolled(v.FS()); err != nil {
		return Content{}, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	return c, nil
}

// place puts a release where its level says.
func (t *tenant) place(r *release) {
	if r.verified.Level() == bundles.LevelEnforce {
		t.enforced = r
	} else if t.enforced == nil || newer(r, t.enforced) {
		t.audited = r
	}
	if t.audited != nil && t.enforced != nil && !newer(t.audited, t.enforced) {
		t.audited = nil
	}
}

func newer(a, b *release) bool {
	x, y := a.verified.Release(), b.verified.Release()
	return x.Epoch > y.Epoch || (x.Epoch == y.Epoch && x.Sequence > y.Sequence)
}

// consider decides about a fetched release; only one that passes everything is remembered, and then put
// into force.
func (l *Loop) consider(ctx context.Context, result pullResult) {
	now := l.deps.Clock.Now()
	t := result.tenant
	digest := documentDigest(result.raw.FS)
	defer func() { l.know.trial = compiled{} }()
	err := l.succeed(t, result.raw, now)
	var accepted *release
	if err == nil {
		accepted, err = l.examine(t, result.raw, now)
	}
	if err == nil {
		err = l.accept(t, accepted, now)
	}
	if _, ok := errors.AsType[*stateError](err); ok {
		// The release is good, but it could not be remembered: without its mark an older one could come
		// back after a restart. It is fetched again at the next look.
		t.forgetKept()
		t.trouble(areaState, classify(err, 0, t.poll), now)
		l.deps.Log.Error("release not accepted", "tenant", t.Name, "revision", result.revision, "error", err)
		l.send(false)
		return
	}
	if !errors.Is(err, bundles.ErrWire) { // then the next look may bring another answer
		t.pull.known = result.revision
	}
	t.judge(result.revision, err)
	if err != nil {
		l.refuse(t, result.revision, digest, err)
		l.send(false)
		return
	}
	l.converge(ctx, CauseRelease)
	giveBack(accepted)
}

// giveBack returns what reading and parsing a large release took: it is not needed until the next one.
func giveBack(r *release) {
	const large = 1000 // files that make it worth a collection
	if r != nil && len(r.verified.Release().Files) >= large {
		debug.FreeOSMemory()
	}
}

// examine verifies and parses; it changes nothing. What was fetched is let go as soon as it is verified.
func (l *Loop) examine(t *tenant, raw *bundles.Raw, now time.Time) (*release, error) {
	if t.enforced != nil {
		raw.Earlier = t.enforced.set
	}
	verified, err := bundles.Verify(raw, t.Trust, t.seen, now)
	if err != nil {
		return nil, err //nolint:wrapcheck // a refusal has its own words
	}
	raw.FS = nil
	r, err := l.parse(t, verified, now)
	if err != nil {
		return nil, err
	}
	if err := l.checkNames(t, r.set); err != nil {
		return nil, err
	}
	if t.enforced == nil || verified.AcknowledgeRemoval() || verified.Level() != bundles.LevelEnforce ||
		verified.Digest() == t.enforced.verified.Digest() {
		return r, nil
	}
	before := l.rulesOf(t.enforced.set)
	l.know.trial = l.compile(compiled{}, []*policies.Set{r.set}, enforce.ModeEnforce)
	if removesTooMuch(before, l.know.trial.host()) {
		return nil, fmt.Errorf("%w: %d rules now, %d then", ErrRemoval, len(before.Rules), len(l.know.trial.host().Rules))
	}
	return r, nil
}

// accept remembers a release: first on disk, then here.
func (l *Loop) accept(t *tenant, r *release, now time.Time) error {
	if err := t.Cache.Store(r.verified); err != nil {
		return &stateError{fmt.Errorf("cache: %w", err)}
	}
	seen := r.verified.Advance(t.seen, l.steady(now))
	seen.Clock = wallTime(now)
	if err := t.Seen.Save(seen); err != nil {
		return &stateError{fmt.Errorf("marks: %w", err)}
	}
	t.solve(areaState)
	t.seen = seen
	l.etch(t, now)
	t.refused = nil
	if r.verified.Level() == bundles.LevelEnforce {
		t.frozen = false
		// One signer, enough for audit, must not take back the alarm about what the kernel still holds.
		delete(t.marked, "Revoked")
	}
	t.place(r)
	r.verified.Unload()
	t.follow(seen.Revision)
	l.deps.Log.Info("release accepted", "tenant", t.Name, "digest", r.verified.Digest(), "sequence", r.verified.Release().Sequence,
		"level", r.verified.Level(), "signers", r.verified.Signers())
	return nil
}

// verifyEvery is how often what is in force is verified again: freshness runs out while nothing arrives.
const verifyEvery = time.Minute

// verifyAgain looks at the releases in force with the trust and the time of now. Whatever it finds, what is
// in the kernel stays there; the report says what is wrong with it.
func (l *Loop) verifyAgain(now time.Time) {
	l.due.verify = now.Add(verifyEvery)
	for _, t := range l.tenants {
		t.verifyAgain(now, l.steady(now))
	}
}

func (t *tenant) verifyAgain(now, steady time.Time) {
	wrong := map[string]string{}
	for _, r := range []*release{t.enforced, t.audited} {
		if r == nil {
			continue
		}
		verified, err := r.verified.Again(t.Trust, t.seen, now)
		switch {
		case errors.Is(err, bundles.ErrRevoked):
			wrong["Revoked"] = err.Error()
		case err != nil:
			wrong["Distrusted"] = "what is in force would not be accepted now: " + err.Error()
		case verified.Level() != r.verified.Level():
			wrong["Distrusted"] = "what is in force has enough signers for " + string(verified.Level()) + " only now"
		default:
			r.verified = verified
			t.judge(verified.Revision(), nil)
		}
	}
	// What was seen of the clock is a floor while the agent runs; the disk has the floor of the last acceptance.
	t.seen.Floor = later(t.seen.Floor, steady)
	t.seen.Clock = later(t.seen.Clock, wallTime(now))
	for _, kind := range []string{"Revoked", "Distrusted"} {
		message, is := wrong[kind]
		switch {
		case is:
			t.mark(kind, message, now)
		case !t.frozen:
			delete(t.marked, kind)
		}
	}
}

// stateError says that this host could not write down what it accepted.
type stateError struct{ err error }

func (e *stateError) Error() string { return e.err.Error() }

// Unwrap returns what failed.
func (e *stateError) Unwrap() error { return e.err }

// Hint is what the operator can do.
func (e *stateError) Hint() string {
	return "look at the free space and the owner of stateDir and cacheDir"
}

// maxDocument is more than any release document that Verify accepts.
const maxDocument = 16 << 20

// documentDigest names a refused release by the digest of its unverified document, "" when it has none.
func documentDigest(release fs.FS) string {
	file, err := release.Open(bundles.ReleasePath)
	if err != nil {
		return ""
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, io.LimitReader(file, maxDocument)); err != nil {
		return ""
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil))
}
