// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

// TestAncestry: whether the history was rewritten is known from the parent, else from the history, else said to be unknown.
func TestAncestry(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	repo := bare(t)
	srv := serveHTTP(t, repo, "", "")
	step := func(s *git.Source, rewritten, unknown bool, what string) {
		t.Helper()
		raw := brought(t, s)
		if raw.Rewritten != rewritten || raw.AncestryUnknown != unknown {
			t.Fatalf("%s: rewritten %v, unknown %v", what, raw.Rewritten, raw.AncestryUnknown)
		}
	}
	s := source(t, git.Config{URL: srv.url(repo)})
	one := commit(t, repo, f.Release(t, 1, "alice"))
	step(s, false, true, "the first fetch")
	step(s, false, false, "the same again")
	tip := commit(t, repo, f.Release(t, 2, "alice"), one)
	step(s, false, false, "a child")
	for seq := int64(3); seq < 7; seq++ {
		tip = commit(t, repo, f.Release(t, seq, "alice"), tip)
	}
	step(s, false, false, "four commits later")
	other := commit(t, repo, f.Release(t, 7, "alice"), one)
	step(s, true, false, "a branch off an older commit")
	commit(t, repo, f.Release(t, 8, "alice"))
	step(s, true, false, "an orphan")
	// A host that knows its last revision from before it was restarted.
	commit(t, repo, f.Release(t, 9, "alice"), other)
	step(source(t, git.Config{URL: srv.url(repo), Last: bundles.Revision(tip)}), true, false, "after a restart")
	step(source(t, git.Config{URL: srv.url(repo), Last: bundles.Revision(other)}), false, false, "after a restart, in order")
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

// TestHostileRepositories: what a Git tree can hold and a release cannot, and what exceeds the limits.
func TestHostileRepositories(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	for _, c := range []struct {
		name, want string
		limits     git.Limits
		make       func(repo string)
	}{
		{"symlink", "path", git.Limits{}, func(repo string) { entry(t, repo, "120000", "blob", []byte("/etc/shadow"), "a.yaml") }},
		{"submodule", "path", git.Limits{}, func(repo string) {
			tree := pipe(t, repo, "", []byte("160000 commit 1111111111111111111111111111111111111111\tsub\n"), "mktree", "--missing")
			commitTree(t, repo, tree)
		}},
		{"name ..", "path", git.Limits{}, func(repo string) { rawTree(t, repo, "..") }},
		{"name .git", "path", git.Limits{}, func(repo string) { rawTree(t, repo, ".GIT") }},
		{"name with a slash", "path", git.Limits{}, func(repo string) { rawTree(t, repo, "a/b") }},
		{"name with a backslash", "path", git.Limits{}, func(repo string) { rawTree(t, repo, `a\b`) }},
		{"name doubled", "path", git.Limits{}, func(repo string) { rawTree(t, repo, "a", "a") }},
		{"too deep", "limits", git.Limits{}, func(repo string) {
			commit(t, repo, map[string][]byte{strings.Repeat("d/", 40) + "f": []byte("x")})
		}},
		{"too many objects", "limits", git.Limits{Objects: 20}, func(repo string) {
			files := map[string][]byte{}
			for i := range 50 {
				files[fmt.Sprintf("f%d", i)] = fmt.Append(nil, i)
			}
			commit(t, repo, files)
		}},
		{"pack too large", "limits", git.Limits{Pack: 20_000}, func(repo string) {
			commit(t, repo, map[string][]byte{"f": noise(100_000)})
		}},
		{"a bomb: 40 MB in a small pack", "limits", git.Limits{}, func(repo string) {
			commit(t, repo, map[string][]byte{"f": make([]byte, 40<<20)})
		}},
		{"bombs: many objects that inflate", "limits", git.Limits{Inflate: 4 << 20}, func(repo string) {
			files := map[string][]byte{}
			for i := range 10 {
				files[fmt.Sprintf("f%d", i)] = append(make([]byte, 1<<20), byte(i))
			}
			commit(t, repo, files)
		}},
		{"refs without end", "limits", git.Limits{Advert: 10_000}, func(repo string) {
			c := commit(t, repo, f.Release(t, 1, "alice"))
			var refs strings.Builder
			for i := range 1000 {
				fmt.Fprintf(&refs, "create refs/heads/x%d %s\n", i, c)
			}
			pipe(t, repo, "", []byte(refs.String()), "update-ref", "--stdin")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			repo := bare(t)
			c.make(repo)
			for _, url := range []string{repo, serveHTTP(t, repo, "", "").url(repo)} {
				s := source(t, git.Config{URL: url, Limits: c.limits})
				rev, err := s.Latest(t.Context())
				if err == nil {
					_, err = s.Fetch(t.Context(), rev)
				}
				if bundles.RefusalName(err) != c.want {
					t.Fatalf("%s: %v (named %q), want %q", url, err, bundles.RefusalName(err), c.want)
				}
				t.Logf("%v", err)
			}
		})
	}
}

// entry makes a tree with one entry of that mode.
func entry(t *testing.T, repo, mode, kind string, data []byte, name string) {
	t.Helper()
	blob := pipe(t, repo, "", data, "hash-object", "-w", "--stdin")
	commitTree(t, repo, pipe(t, repo, "", fmt.Appendf(nil, "%s %s %s\t%s\n", mode, kind, blob, name), "mktree"))
}

// rawTree writes a tree object byte by byte: git itself would not make one with such names.
func rawTree(t *testing.T, repo string, names ...string) {
	t.Helper()
	blob := pipe(t, repo, "", []byte("x"), "hash-object", "-w", "--stdin")
	var raw []byte
	for _, n := range names {
		raw = append(raw, "100644 "+n+"\x00"...)
		for i := 0; i < 40; i += 2 {
			var b byte
			if _, err := fmt.Sscanf(blob[i:i+2], "%02x", &b); err != nil {
				t.Fatal(err)
			}
			raw = append(raw, b)
		}
	}
	tree := pipe(t, repo, "", raw, "hash-object", "-w", "-t", "tree", "--literally", "--stdin")
	commitTree(t, repo, tree)
}

// noise does not compress.
func noise(n int) []byte {
	out, x := make([]byte, n), uint64(88172645463325252)
	for i := range out {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		out[i] = byte(x)
	}
	return out
}

// TestBrokenServers: servers that lie, hang or send garbage end in an error within the time, never in a panic.
func TestBrokenServers(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	repo := bare(t)
	commit(t, repo, f.Release(t, 1, "alice"))
	good := serveHTTP(t, repo, "", "")
	for name, h := range map[string]http.HandlerFunc{
		"garbage":   func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>login</html>")) },
		"empty":     func(http.ResponseWriter, *http.Request) {},
		"500":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"401":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
		"truncated": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("001e# service=git-upload-pack\n0000")) },
		"hangs":     func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte("003f1111111111111111111111111111111111111111 refs/heads/xxxxxxx\n")); err != nil {
					return
				}
			}
		},
	} {
		srv := httptest.NewServer(h)
		s := source(t, git.Config{URL: srv.URL, Limits: git.Limits{Time: 2 * time.Second, Advert: 1 << 20}})
		start := time.Now()
		if _, err := s.Latest(t.Context()); err == nil || time.Since(start) > 20*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(start))
		} else {
			t.Logf("%s: %v", name, err)
		}
		srv.CloseClientConnections()
		srv.Close()
	}
	// A pack cut short in the middle.
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		good.Config.Handler.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		if r.Method == http.MethodPost {
			body = body[:len(body)/2]
		}
		w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
		w.Write(body)
	}))
	defer cut.Close()
	s := source(t, git.Config{URL: cut.URL + "/" + filepath.Base(repo)})
	rev, err := s.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), rev); err == nil {
		t.Fatal("half a pack was taken")
	}
}

// TestSlowSSH: a server that accepts and says nothing is left after the time.
func TestSlowSSH(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	keyPair(t, filepath.Join(dir, "user"))
	pub := keyPair(t, filepath.Join(dir, "host"))
	known := filepath.Join(dir, "known")
	write(t, known, []byte(knownhosts.Line([]string{l.Addr().String()}, pub)+"\n"), 0o600)
	s := source(t, git.Config{
		URL: "ssh://git@" + l.Addr().String() + "/x", Limits: git.Limits{Time: time.Second},
		Credentials: git.Credentials{SSHKeyFile: filepath.Join(dir, "user"), KnownHostsFile: known},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := s.Latest(ctx); err == nil || ctx.Err() != nil {
		t.Fatalf("%v (%v)", err, ctx.Err())
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

// TestTLS: a server's certificate must lead to the authorities named, or to the system's.
func TestTLS(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	repo := bare(t)
	commit(t, repo, f.Release(t, 5, "alice"))
	plain := serveHTTP(t, repo, "", "")
	srv := httptest.NewTLSServer(plain.Config.Handler)
	t.Cleanup(srv.Close)
	url := srv.URL + "/" + filepath.Base(repo)
	if _, err := source(t, git.Config{URL: url}).Latest(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Fatalf("an unknown authority: %v", err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o644)
	creds := git.Credentials{CAFile: ca}
	raw := brought(t, source(t, git.Config{URL: url, Credentials: creds}))
	if _, err := bundles.Verify(raw, f.Trust(t, 1, 1, ""), bundles.Seen{}, bundlestest.Now()); err != nil {
		t.Fatal(err)
	}
	// The publisher believes the same file.
	ch, err := git.OpenChannel(git.ChannelConfig{URL: url, Channel: "stable", Credentials: creds})
	if err != nil {
		t.Fatal(err)
	}
	if rev, err := ch.Refresh(t.Context()); err != nil || rev != raw.Revision {
		t.Fatal(rev, err)
	}
}

// TestRedirect: a password is not sent to where a redirect leads, and a redirect to another scheme is refused.
func TestRedirect(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	repo := bare(t)
	commit(t, repo, f.Release(t, 5, "alice"))
	var leaked atomic.Bool
	target := serveHTTP(t, repo, "", "")
	spy := func(r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
	}
	target.before.Store(&spy)
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(target.URL, "127.0.0.1", "localhost", 1)+r.URL.RequestURI(), http.StatusFound)
	}))
	t.Cleanup(first.Close)
	password := filepath.Join(t.TempDir(), "password")
	write(t, password, []byte("s3cret"), 0o600)
	s := source(t, git.Config{URL: first.URL + "/" + filepath.Base(repo), Credentials: git.Credentials{PasswordFile: password}})
	if _, err := s.Latest(t.Context()); err != nil {
		t.Logf("the redirect is not followed: %v", err)
	}
	if leaked.Load() {
		t.Fatal("the password went to another host")
	}
}
