// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/git"
)

func channel(t testing.TB, url string) *git.Channel {
	t.Helper()
	c, err := git.OpenChannel(git.ChannelConfig{URL: url, Channel: "stable"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func content(names ...string) bundles.Content {
	files := map[string][]byte{}
	for _, n := range names {
		files[n+".yaml"] = bundlestest.Policy(n)
	}
	return bundles.Content{Files: files, Commit: bundlestest.Commit, Issued: bundlestest.Issued()}
}

// publisher is a fleet's publisher of one key.
type publisher struct {
	fleet *bundlestest.Fleet
	opts  bundles.PublishOptions
}

func newPublisher(t testing.TB, enforce int, signers ...string) *publisher {
	t.Helper()
	f := bundlestest.New(t, signers...)
	text := f.TrustYAML(t, 1, enforce, "")
	return &publisher{f, bundles.PublishOptions{
		Trust: f.Trust(t, 1, enforce, ""), TrustBytes: []byte(text),
		Keys: []*bundles.KeySigner{f.Keys[signers[0]]}, Now: bundlestest.Now(),
	}}
}

func (p *publisher) publish(t testing.TB, url string, change func(*bundles.PublishOptions)) (*bundles.Published, error) {
	t.Helper()
	o := p.opts
	change(&o)
	return bundles.Publish(t.Context(), channel(t, url), o)
}

func with(c bundles.Content) func(*bundles.PublishOptions) {
	return func(o *bundles.PublishOptions) { o.Content = c }
}

// TestPublish walks the life of a channel: first release, again, change, rollback, fresh names in history.
func TestPublish(t *testing.T) {
	t.Parallel()
	repo := bare(t)
	p := newPublisher(t, 1, "alice")
	must := func(change func(*bundles.PublishOptions)) *bundles.Published {
		t.Helper()
		got, err := p.publish(t, repo, change)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	one := must(with(content("a")))
	if !one.Changed || one.Sequence != 1 {
		t.Fatalf("%+v", one)
	}
	if again := must(with(content("a"))); again.Changed || again.Digest != one.Digest || again.Revision != one.Revision {
		t.Fatalf("publishing the same again: %+v", again)
	}
	later := content("a")
	later.Commit, later.Issued = strings.Repeat("2", 40), bundlestest.Issued().Add(time.Hour)
	if again := must(with(later)); again.Changed {
		t.Fatalf("another commit with the same files: %+v", again)
	}
	if two := must(with(content("a", "b"))); !two.Changed || two.Sequence != 2 {
		t.Fatalf("%+v", two)
	}
	three := must(func(o *bundles.PublishOptions) { o.RollbackTo = 1 })
	if three.Sequence != 3 || three.Files != 1 {
		t.Fatalf("rollback: %+v", three)
	}
	raw := brought(t, source(t, git.Config{URL: repo}))
	v, err := bundles.Verify(raw, p.opts.Trust, bundles.Seen{}, bundlestest.Now())
	if err != nil || v.Release().Sequence != 3 {
		t.Fatal(v, err)
	}
	if text, err := fs.ReadFile(raw.FS, bundles.TrustFile(1)); err != nil || string(text) != string(p.opts.TrustBytes) {
		t.Fatalf("the trust file is not beside the release: %v", err)
	}
	run(t, repo, "fsck", "--strict")
	if n := run(t, repo, "rev-list", "--count", "muster/stable"); n != "3" {
		t.Fatalf("%s commits", n)
	}
}

// TestPublishRefuses: what no host would take is refused before it is pushed.
func TestPublishRefuses(t *testing.T) {
	t.Parallel()
	repo := bare(t)
	p := newPublisher(t, 1, "alice")
	bad := content("a")
	bad.Files["broken.yaml"] = []byte("kind: Nonsense\n")
	path := content("a")
	path.Files["../x"] = nil
	for _, c := range []struct {
		name, says string
		change     func(*bundles.PublishOptions)
	}{
		{"a policy with problems", "the policies have problems", with(bad)},
		{"a path", "leaves the release", with(path)},
		{"a stranger's key", "not one of the trust file's signers", func(o *bundles.PublishOptions) {
			o.Keys = []*bundles.KeySigner{bundlestest.NewKey(t)}
		}},
		{"no key", "no key to sign with", func(o *bundles.PublishOptions) { o.Keys = nil }},
		{"rollback to nothing", "has no release 7", func(o *bundles.PublishOptions) { o.RollbackTo = 7 }},
		{"fresh without a key", "needs a freshness key", func(o *bundles.PublishOptions) { o.Fresh.Only = true }},
		{"fresh that nobody asks for", "names no freshness signers", func(o *bundles.PublishOptions) { o.Fresh.Key = bundlestest.NewKey(t) }},
	} {
		_, err := p.publish(t, repo, func(o *bundles.PublishOptions) { o.Content = content("a"); c.change(o) })
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it to say %q", c.name, err, c.says)
		}
	}
	if refs := run(t, repo, "for-each-ref"); refs != "" {
		t.Fatalf("something was pushed: %s", refs)
	}
}

// TestPublishOverBrokenTip: a hostile tip keeps nobody from publishing, and the numbers still only rise.
func TestPublishOverBrokenTip(t *testing.T) {
	t.Parallel()
	repo := bare(t)
	p := newPublisher(t, 1, "alice")
	for i := range 3 {
		if _, err := p.publish(t, repo, with(content("a", fmt.Sprint("x", i)))); err != nil {
			t.Fatal(err)
		}
	}
	tip := run(t, repo, "rev-parse", "muster/stable")
	old := p.fleet.Sign(t, content("a", "x0").Files, p.fleet.Doc(t, content("a", "x0").Files, 1), "alice")
	stranger := p.fleet.Release(t, 4)
	stranger[bundles.SignatureFile("alice")] = bundlestest.Bundle(t, bundlestest.NewKey(t), stranger[bundles.ReleasePath])
	far := p.fleet.Release(t, 1_000_000)
	far[bundles.SignatureFile("alice")] = []byte("{}")
	for _, c := range []struct {
		name  string
		files map[string][]byte
		want  int64
		over  bool
	}{
		{"an old release again", old, 4, false},
		{"a stranger's release 4", stranger, 5, true},
		{"a stranger's huge number", far, 6, true},
		{"garbage", map[string][]byte{"x": []byte("y")}, 7, true},
	} {
		commit(t, repo, c.files, tip)
		got, err := p.publish(t, repo, with(content("a", c.name[:1])))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if (got.Over != "") != c.over {
			t.Errorf("%s: over %q", c.name, got.Over)
		}
		if got.Sequence != c.want {
			t.Errorf("%s: sequence %d, want %d", c.name, got.Sequence, c.want)
		}
		t.Logf("%s: release %d over %q", c.name, got.Sequence, got.Over)
		tip = string(got.Revision)
	}
	// A symlink in the tip's tree makes the whole revision unreadable; publishing goes on above it.
	blob := pipe(t, repo, "", []byte("/etc/shadow"), "hash-object", "-w", "--stdin")
	commitTree(t, repo, pipe(t, repo, "", []byte("120000 blob "+blob+"\tlink\n"), "mktree"), tip)
	if got, err := p.publish(t, repo, with(content("end"))); err != nil || !strings.Contains(got.Over, "symlink") {
		t.Fatalf("%+v %v", got, err)
	}
}

// TestPublishRaces lets many publish at once over a real server: each ends with a number of its own, nothing is
// lost, and the losers were told apart from real errors.
func TestPublishRaces(t *testing.T) {
	t.Parallel()
	repo := bare(t)
	srv := serveHTTP(t, repo, "", "")
	p := newPublisher(t, 1, "alice")
	const n = 8
	var wg sync.WaitGroup
	got, errs := make([]*bundles.Published, n), make([]error, n)
	for i := range n {
		wg.Go(func() {
			o := p.opts
			o.Content = content("a", fmt.Sprint("p", i))
			got[i], errs[i] = bundles.Publish(t.Context(), channel(t, srv.url(repo)), o)
		})
	}
	wg.Wait()
	var sequences []int64
	attempts := 0
	for i := range n {
		if errs[i] != nil {
			t.Fatalf("publisher %d: %v", i, errs[i])
		}
		sequences = append(sequences, got[i].Sequence)
		attempts += got[i].Attempts
	}
	slices.Sort(sequences)
	t.Logf("%d publishers, %d attempts", n, attempts)
	if !slices.Equal(sequences, []int64{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Fatalf("sequences %v", sequences)
	}
	if c := run(t, repo, "rev-list", "--count", "muster/stable"); c != "8" {
		t.Fatalf("%s commits", c)
	}
}

// TestLostRaceOverEachTransport makes exactly one publisher lose: the other pushes between its fetch and its push.
func TestLostRaceOverEachTransport(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"file", "http", "ssh"} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s first=%v", transport, first), func(t *testing.T) {
				t.Parallel()
				repo := bare(t)
				p := newPublisher(t, 1, "alice")
				cfg := git.ChannelConfig{URL: repo, Channel: "stable"}
				switch transport {
				case "http":
					cfg.URL = serveHTTP(t, repo, "", "").url(repo)
				case "ssh":
					srv := serveSSH(t)
					cfg.URL, cfg.Credentials = srv.url(repo), srv.creds
				}
				if !first {
					if _, err := p.publish(t, repo, with(content("a"))); err != nil {
						t.Fatal(err)
					}
				}
				ch, err := git.OpenChannel(cfg)
				if err != nil {
					t.Fatal(err)
				}
				slow := &interrupted{Channel: ch, once: sync.OnceFunc(func() {
					if _, err := p.publish(t, repo, with(content("a", "winner"))); err != nil {
						t.Error(err)
					}
				})}
				o := p.opts
				o.Content = content("a", "loser")
				got, err := bundles.Publish(t.Context(), slow, o)
				if err != nil || got.Attempts != 2 {
					t.Fatalf("%+v %v (lost with %v)", got, err, slow.lost)
				}
				t.Logf("lost with: %v", slow.lost)
			})
		}
	}
}

// interrupted lets somebody else publish before the first Append.
type interrupted struct {
	*git.Channel
	once func()
	lost error
}

func (i *interrupted) Append(ctx context.Context, parent bundles.Revision, files map[string][]byte, message string, when time.Time) (bundles.Revision, error) {
	i.once()
	rev, err := i.Channel.Append(ctx, parent, files, message, when)
	if err != nil {
		i.lost = err
	}
	return rev, err
}

// TestPermanentPushErrors: a hook's refusal and a missing permission are not tried again.
func TestPermanentPushErrors(t *testing.T) {
	t.Parallel()
	repo := bare(t)
	p := newPublisher(t, 1, "alice")
	write(t, filepath.Join(repo, "hooks", "pre-receive"), []byte("#!/bin/sh\necho no >&2\nexit 1\n"), 0o755)
	_, err := p.publish(t, repo, with(content("a")))
	if err == nil || errors.Is(err, bundles.ErrLostRace) || bundles.RefusalName(err) != "publish" {
		t.Fatalf("a hook declined: %v", err)
	}
	if err := os.Remove(filepath.Join(repo, "hooks", "pre-receive")); err != nil {
		t.Fatal(err)
	}
	srv := serveHTTP(t, repo, "muster", "s3cret")
	var pushes int
	count := func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "git-receive-pack") {
			pushes++
		}
	}
	srv.before.Store(&count)
	_, err = p.publish(t, srv.url(repo), with(content("a")))
	if err == nil || errors.Is(err, bundles.ErrLostRace) || pushes > 1 {
		t.Fatalf("without a password: %v, %d pushes", err, pushes)
	}
	ch, err := git.OpenChannel(git.ChannelConfig{URL: srv.url(repo), Channel: "stable", Username: "muster", Password: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	o := p.opts
	o.Content = content("a")
	if _, err := bundles.Publish(t.Context(), ch, o); err != nil {
		t.Fatalf("with the password: %v", err)
	}
}

// TestApprove: two people, one release; the second sees what changes and makes it enforceable.
func TestApprove(t *testing.T) {
	t.Parallel()
	repo := bare(t)
	p := newPublisher(t, 2, "alice", "bob")
	review := func() *bundles.Review {
		t.Helper()
		r, err := bundles.NewReview(t.Context(), channel(t, repo), p.opts.Trust, bundlestest.Now())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	approve := func(r *bundles.Review, who string) (*bundles.Published, error) {
		return bundles.Approve(t.Context(), channel(t, repo), r, p.opts.Trust, p.fleet.Keys[who], bundlestest.Now())
	}
	if _, err := bundles.NewReview(t.Context(), channel(t, repo), p.opts.Trust, bundlestest.Now()); !errors.Is(err, bundles.ErrNoRelease) {
		t.Fatal(err)
	}
	if _, err := p.publish(t, repo, with(content("a", "b"))); err != nil {
		t.Fatal(err)
	}
	r := review()
	if r.Level != bundles.LevelAudit || r.Needed != 1 || len(r.Changes) != 2 || r.Against != nil {
		t.Fatalf("%+v", r)
	}
	got, err := approve(r, "bob")
	if err != nil || !got.Changed || len(got.Signers) != 2 {
		t.Fatalf("%+v %v", got, err)
	}
	v, err := bundles.Verify(brought(t, source(t, git.Config{URL: repo})), p.opts.Trust, bundles.Seen{}, bundlestest.Now())
	if err != nil || v.Level() != bundles.LevelEnforce || v.Digest() != r.Release.Digest() {
		t.Fatal(v, err)
	}
	if again, err := approve(review(), "bob"); err != nil || again.Changed {
		t.Fatalf("approving twice: %+v %v", again, err)
	}
	// The next release, seen against the enforced one.
	next := content("a", "c")
	next.Files["a.yaml"] = append(next.Files["a.yaml"], "# a word\n"...)
	if _, err := p.publish(t, repo, with(next)); err != nil {
		t.Fatal(err)
	}
	r = review()
	whats := map[string]string{}
	for _, c := range r.Changes {
		whats[c.Path] = c.What
	}
	if !maps.Equal(whats, map[string]string{"a.yaml": "changed", "b.yaml": "removed", "c.yaml": "added"}) || r.Against.Release().Sequence != 1 {
		t.Fatalf("%v", whats)
	}
	if !strings.Contains(r.Changes[0].Diff, "+# a word") {
		t.Fatalf("no diff: %s", r.Changes[0].Diff)
	}
	// Another release comes between review and signature: nothing is signed.
	if _, err := p.publish(t, repo, with(content("d"))); err != nil {
		t.Fatal(err)
	}
	tip := run(t, repo, "rev-parse", "muster/stable")
	if _, err := approve(r, "bob"); err == nil || !strings.Contains(err.Error(), "after the review") {
		t.Fatalf("signing what was not reviewed: %v", err)
	}
	if run(t, repo, "rev-parse", "muster/stable") != tip {
		t.Fatal("something was pushed")
	}
	if _, err := bundles.Approve(t.Context(), channel(t, repo), review(), p.opts.Trust, bundlestest.NewKey(t), bundlestest.Now()); err == nil {
		t.Fatal("a stranger approved")
	}
}

// TestFresh: a scheduled job vouches for the newest release and can change nothing else.
func TestFresh(t *testing.T) {
	t.Parallel()
	repo := bare(t)
	f := bundlestest.New(t, "alice")
	clock := bundlestest.NewKey(t)
	extra := "freshness:\n  maxAge: 26h\n  signers:\n  " + strings.ReplaceAll(bundlestest.Signer(t, "ci-clock", clock), "\n", "\n  ")
	o := bundles.PublishOptions{
		Trust: f.Trust(t, 1, 1, extra), Keys: []*bundles.KeySigner{f.Keys["alice"]}, Now: bundlestest.Now(), Content: content("a"),
	}
	conditions := func(now time.Time) int {
		t.Helper()
		v, err := bundles.Verify(brought(t, source(t, git.Config{URL: repo})), o.Trust, bundles.Seen{}, now)
		if err != nil {
			t.Fatal(err)
		}
		return len(v.Conditions())
	}
	one, err := bundles.Publish(t.Context(), channel(t, repo), o)
	if err != nil {
		t.Fatal(err)
	}
	if conditions(bundlestest.Now()) != 1 {
		t.Fatal("a release without fresh.json is not stale")
	}
	o.Fresh = bundles.FreshOptions{Key: clock, Valid: 48 * time.Hour, Only: true}
	o.Keys, o.Content = nil, bundles.Content{}
	two, err := bundles.Publish(t.Context(), channel(t, repo), o)
	if err != nil || two.Digest != one.Digest || two.Revision == one.Revision {
		t.Fatalf("%+v %v", two, err)
	}
	if conditions(bundlestest.Now()) != 0 || conditions(bundlestest.Now().Add(27*time.Hour)) != 1 {
		t.Fatal("freshness does not hold for maxAge")
	}
}

// TestRepository reads a commit's blobs, never the working tree.
func TestRepository(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run(t, dir, "init", "--quiet", "-b", "main")
	run(t, dir, "remote", "add", "origin", "git@example.com:policy.git")
	if err := os.MkdirAll(filepath.Join(dir, "policies", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "policies", "a.yaml"), []byte("committed"), 0o755)
	write(t, filepath.Join(dir, "policies", "sub", "b.yaml"), []byte("b"), 0o644)
	write(t, filepath.Join(dir, "README"), []byte("outside root"), 0o644)
	run(t, dir, "add", "-A")
	run(t, dir, "commit", "--quiet", "-m", "x")
	write(t, filepath.Join(dir, "policies", "a.yaml"), []byte("changed on disk"), 0o644)
	r, err := git.OpenRepository(filepath.Join(dir, "policies"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Resolve("main")
	if err != nil || c.Hash != run(t, dir, "rev-parse", "HEAD") {
		t.Fatal(c, err)
	}
	files, err := c.Files("policies")
	if err != nil || len(files) != 2 || string(files["a.yaml"]) != "committed" || string(files["sub/b.yaml"]) != "b" {
		t.Fatalf("%q %v", files, err)
	}
	if url, err := r.RemoteURL("origin"); err != nil || url != "git@example.com:policy.git" || git.PublicURL(url) != "ssh://example.com/policy.git" {
		t.Fatal(url, git.PublicURL(url), err)
	}
	if git.PublicURL("https://user:pass@example.com/x") != "https://example.com/x" || git.PublicURL("/srv/x") != "" || !git.IsSSH("git@example.com:x") || git.IsSSH("/srv/x") {
		t.Fatal("PublicURL")
	}
	// Everything that a release cannot hold is named at once.
	if err := os.Symlink("a.yaml", filepath.Join(dir, "policies", "link.yaml")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "policies", "with space.yaml"), nil, 0o644)
	run(t, dir, "add", "-A")
	run(t, dir, "commit", "--quiet", "-m", "y")
	if c, err = r.Resolve("HEAD"); err != nil {
		t.Fatal(err)
	}
	_, err = c.Files("policies")
	if bundles.RefusalName(err) != "path" || !strings.Contains(err.Error(), "link.yaml") || !strings.Contains(err.Error(), "with space.yaml") {
		t.Fatal(err)
	}
	if _, err := c.Files("nowhere"); err == nil {
		t.Fatal("a root that is not there")
	}
}
