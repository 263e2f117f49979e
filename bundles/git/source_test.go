// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/git"
)

func source(t testing.TB, cfg git.Config) *git.Source {
	t.Helper()
	if cfg.Channel == "" {
		cfg.Channel = "stable"
	}
	s, err := git.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// brought is Latest and Fetch.
func brought(t testing.TB, s *git.Source) *bundles.Raw {
	t.Helper()
	rev, err := s.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Fetch(t.Context(), rev)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestTransports brings one release over each transport and verifies it.
func TestTransports(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	trust := f.Trust(t, 1, 1, "")
	repo := bare(t)
	tip := commit(t, repo, f.Release(t, 5, "alice"))
	check := func(t *testing.T, cfg git.Config) {
		t.Helper()
		raw := brought(t, source(t, cfg))
		v, err := bundles.Verify(raw, trust, bundles.Seen{}, bundlestest.Now())
		if err != nil || v.Level() != bundles.LevelEnforce || string(v.Revision()) != tip {
			t.Fatalf("%v at %s: %v", v, raw.Revision, err)
		}
	}
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		check(t, git.Config{URL: "file://" + repo})
		check(t, git.Config{URL: repo})
		worktree := filepath.Join(t.TempDir(), "clone")
		run(t, ".", "clone", "--quiet", "-b", "muster/stable", repo, worktree)
		check(t, git.Config{URL: worktree})
	})
	t.Run("http", func(t *testing.T) {
		t.Parallel()
		check(t, git.Config{URL: serveHTTP(t, repo, "", "").url(repo)})
	})
	t.Run("http with a password", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		write(t, filepath.Join(dir, "user"), []byte("muster\n"), 0o644)
		write(t, filepath.Join(dir, "password"), []byte("s3cret\n"), 0o600)
		url := serveHTTP(t, repo, "muster", "s3cret").url(repo)
		creds := git.Credentials{UsernameFile: filepath.Join(dir, "user"), PasswordFile: filepath.Join(dir, "password")}
		check(t, git.Config{URL: url, Credentials: creds})
		_, err := source(t, git.Config{URL: url}).Latest(t.Context())
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Fatalf("without the password: %v", err)
		}
	})
	t.Run("ssh", func(t *testing.T) {
		t.Parallel()
		srv := serveSSH(t)
		check(t, git.Config{URL: srv.url(repo), Credentials: srv.creds})
		testHostKeys(t, srv, repo)
	})
}

// testHostKeys: a host key that is missing or another is refused, each in its own words.
func testHostKeys(t *testing.T, srv *sshServer, repo string) {
	t.Helper()
	dir := t.TempDir()
	other := keyPair(t, filepath.Join(dir, "other"))
	for says, line := range map[string]string{
		"has no key of":                 "",
		"is not the one in known_hosts": knownhosts.Line([]string{srv.addr}, other) + "\n",
	} {
		creds := srv.creds
		creds.KnownHostsFile = filepath.Join(dir, strings.ReplaceAll(says, " ", "-"))
		write(t, creds.KnownHostsFile, []byte(line), 0o600)
		_, err := source(t, git.Config{URL: srv.url(repo), Credentials: creds}).Latest(t.Context())
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want it to say %q", err, says)
		}
	}
	// Certificate authorities: the one that certified the server's key, another one, and this one for another name.
	at := knownhosts.Normalize(srv.addr)
	for name, c := range map[string]struct {
		line string
		well bool
	}{
		"authority":         {"@cert-authority " + knownhosts.Line([]string{at}, srv.authority), true},
		"another authority": {"@cert-authority " + knownhosts.Line([]string{at}, other), false},
		"of another host":   {"@cert-authority " + knownhosts.Line([]string{"git.example.com"}, srv.authority), false},
		"revoked":           {"@revoked * " + strings.SplitN(knownhosts.Line([]string{at}, srv.authority), " ", 2)[1] + "\n@cert-authority " + knownhosts.Line([]string{at}, srv.authority), false},
	} {
		creds := srv.creds
		creds.KnownHostsFile = filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		write(t, creds.KnownHostsFile, []byte(c.line+"\n"), 0o600)
		_, err := source(t, git.Config{URL: srv.url(repo), Credentials: creds}).Latest(t.Context())
		if (err == nil) != c.well {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := source(t, git.Config{URL: srv.url("/nowhere.git"), Credentials: srv.creds}).Latest(t.Context()); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a repository that is not there: %v", err)
	}
}

// TestUnchangedPoll counts what an unchanged poll costs: one GET of the ref advertisement, no POST, and not a
// byte written to disk (the source has no directory to write to).
func TestUnchangedPoll(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	repo := bare(t)
	commit(t, repo, f.Release(t, 5, "alice"))
	srv := serveHTTP(t, repo, "", "")
	s := source(t, git.Config{URL: srv.url(repo)})
	first := brought(t, s)
	requests, sent, posts := srv.requests.Load(), srv.sent.Load(), srv.posts.Load()
	t.Logf("first poll and fetch: %d requests (%d POST), %d bytes", requests, posts, sent)
	const polls = 10
	for range polls {
		rev, err := s.Latest(t.Context())
		if err != nil || rev != first.Revision {
			t.Fatal(rev, err)
		}
	}
	gotRequests, gotPosts, bytes := srv.requests.Load()-requests, srv.posts.Load()-posts, srv.sent.Load()-sent
	t.Logf("%d unchanged polls: %d requests (%d POST), %d bytes each", polls, gotRequests, gotPosts, bytes/polls)
	if gotRequests != polls || gotPosts != 0 || bytes/polls > 1000 {
		t.Fatalf("an unchanged poll is more than one small request")
	}
}

// TestAncestry: whether the history was rewritten is known from the parent, else from the history, else said to be
// unknown. What counts is the revision that was accepted, not what was seen since.
func TestAncestry(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	repo := bare(t)
	srv := serveHTTP(t, repo, "", "")
	s := source(t, git.Config{URL: srv.url(repo)})
	step := func(rewritten, unknown bool, what string) {
		t.Helper()
		raw := brought(t, s)
		if raw.Rewritten != rewritten || (raw.AncestryUnknown != nil) != unknown {
			t.Fatalf("%s: rewritten %v, unknown: %v", what, raw.Rewritten, raw.AncestryUnknown)
		}
	}
	one := commit(t, repo, f.Release(t, 1, "alice"))
	step(false, false, "nothing was accepted before")
	s.Accepted(bundles.Revision(one), nil)
	step(false, false, "the same again")
	tip := commit(t, repo, f.Release(t, 2, "alice"), one)
	step(false, false, "a child")
	for seq := int64(3); seq < 7; seq++ {
		tip = commit(t, repo, f.Release(t, seq, "alice"), tip)
	}
	step(false, false, "five commits later, none of them accepted")
	s.Accepted(bundles.Revision(tip), nil)
	other := commit(t, repo, f.Release(t, 7, "alice"), one)
	step(true, false, "a branch off an older commit")
	other = commit(t, repo, f.Release(t, 8, "alice"), other)
	step(true, false, "a child of what was refused")
	orphan := commit(t, repo, f.Release(t, 8, "alice"))
	step(true, false, "an orphan")
	commit(t, repo, f.Release(t, 9, "alice"), orphan)
	step(true, false, "a child of the orphan")
	commit(t, repo, f.Release(t, 9, "alice"), padded(t, repo, 1030))
	step(false, true, "behind more commits than are looked through")
	s.Accepted(bundles.Revision("sha256:"+strings.Repeat("0", 64)+"+00"), nil)
	step(false, true, "the release before came out of a registry")
	s.Accepted(bundles.Revision(other), nil)
	commit(t, repo, f.Release(t, 9, "alice"), other)
	step(false, false, "what was accepted goes on")
}

// padded answers the last of n empty commits.
func padded(t *testing.T, repo string, n int) string {
	t.Helper()
	var in strings.Builder
	in.WriteString("reset refs/heads/padding\n")
	for i := range n {
		fmt.Fprintf(&in, "commit refs/heads/padding\ncommitter x <x@example.com> %d +0000\ndata 1\nx\n", i+1)
	}
	cmd := exec.CommandContext(t.Context(), "git", "-C", repo, "fast-import", "--quiet")
	cmd.Stdin = strings.NewReader(in.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), "git", "-C", repo, "rev-parse", "refs/heads/padding").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestMovedAndMissing(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	repo := bare(t)
	s := source(t, git.Config{URL: repo})
	if _, err := s.Latest(t.Context()); !errors.Is(err, bundles.ErrNoRelease) {
		t.Fatalf("an empty repository: %v", err)
	}
	c := commit(t, repo, f.Release(t, 1, "alice"))
	if _, err := source(t, git.Config{URL: repo, Channel: "canary"}).Latest(t.Context()); !errors.Is(err, bundles.ErrNoRelease) {
		t.Fatalf("a channel that is not there: %v", err)
	}
	rev, err := s.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	commit(t, repo, f.Release(t, 2, "alice"), c)
	if _, err := s.Fetch(t.Context(), rev); !errors.Is(err, git.ErrMoved) {
		t.Fatalf("the branch moved: %v", err)
	}
	if _, err := source(t, git.Config{URL: "file:///nowhere"}).Latest(t.Context()); err == nil {
		t.Fatal("a repository that is not there")
	}
}

// TestCredentialErrors: each is refused before any network is touched, and no secret is in any error.
func TestCredentialErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	write(t, secret, []byte("hunter2"), 0o600)
	open := filepath.Join(dir, "open")
	write(t, open, []byte("hunter2"), 0o644)
	empty := filepath.Join(dir, "empty")
	write(t, empty, nil, 0o600)
	for _, c := range []struct {
		says string
		cfg  git.Config
	}{
		{"contains a password", git.Config{URL: "https://git:hunter2@example.com/x"}},
		{"in the clear", git.Config{URL: "http://example.com/x", Credentials: git.Credentials{PasswordFile: secret}}},
		{"contradict", git.Config{URL: "https://example.com/x", Credentials: git.Credentials{PasswordFile: secret, TokenFile: secret}}},
		{"knownHostsFile", git.Config{URL: "ssh://git@example.com/x", Credentials: git.Credentials{SSHKeyFile: secret}}},
		{"sshKeyFile", git.Config{URL: "ssh://git@example.com/x", Credentials: git.Credentials{KnownHostsFile: open}}},
		{"sshKeyFile", git.Config{URL: "git@example.com:x", Credentials: git.Credentials{KnownHostsFile: open}}},
		{"scheme", git.Config{URL: "ftp://example.com/x"}},
		{"scheme", git.Config{URL: "git://example.com/x"}},
		{"empty", git.Config{}},
		{"is not a name", git.Config{URL: "https://example.com/x", Channel: "../main"}},
		{"others can read it", git.Config{URL: "https://127.0.0.1:1/x", Credentials: git.Credentials{TokenFile: open}}},
		{"empty or larger", git.Config{URL: "https://127.0.0.1:1/x", Credentials: git.Credentials{TokenFile: empty}}},
		{"not a regular file", git.Config{URL: "https://127.0.0.1:1/x", Credentials: git.Credentials{TokenFile: dir}}},
		{"no certificate", git.Config{URL: "https://127.0.0.1:1/x", Credentials: git.Credentials{CAFile: open}}},
		{"no private key", git.Config{URL: "ssh://127.0.0.1:1/x", Credentials: git.Credentials{SSHKeyFile: secret, KnownHostsFile: empty}}},
	} {
		if c.cfg.Channel == "" {
			c.cfg.Channel = "stable"
		}
		s, err := git.New(c.cfg)
		if err == nil {
			_, err = s.Latest(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%+v: %v, want it to say %q", c.cfg, err, c.says)
		}
	}
}

// TestNoHome: fetching needs no home directory and leaves nothing behind.
func TestNoHome(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	f := bundlestest.New(t, "alice")
	repo := bare(t)
	commit(t, repo, f.Release(t, 5, "alice"))
	raw := brought(t, source(t, git.Config{URL: serveHTTP(t, repo, "", "").url(repo)}))
	if _, err := bundles.Verify(raw, f.Trust(t, 1, 1, ""), bundles.Seen{}, bundlestest.Now()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(home)
	if err != nil || len(entries) != 0 {
		t.Fatalf("left behind: %v %v", entries, err)
	}
	if _, err := fs.Stat(raw.FS, bundles.ReleasePath); err != nil {
		t.Fatal(err)
	}
}
