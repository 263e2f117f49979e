// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/git"
)

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
		{"a name of megabytes", "limits", git.Limits{}, func(repo string) { rawTree(t, repo, strings.Repeat("n", 1<<20)) }},
		{"directories without end and without files", "limits", git.Limits{}, func(repo string) {
			commitTree(t, repo, nested(t, repo, pipe(t, repo, "", nil, "mktree"), 8, 16))
		}},
		{"files without end out of one blob", "limits", git.Limits{}, func(repo string) {
			blob := pipe(t, repo, "", []byte("x"), "hash-object", "-w", "--stdin")
			commitTree(t, repo, nested(t, repo, pipe(t, repo, "", fmt.Appendf(nil, "100644 blob %s\tf\n", blob), "mktree"), 8, 16))
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

// nested makes a tree that names the one below it so many times, so many levels up: width^depth directories in a
// pack of a few kilobytes.
func nested(t *testing.T, repo, tree string, width, depth int) string {
	t.Helper()
	for range depth {
		var list strings.Builder
		for i := range width {
			fmt.Fprintf(&list, "040000 tree %s\td%d\n", tree, i)
		}
		tree = pipe(t, repo, "", []byte(list.String()), "mktree")
	}
	return tree
}

// TestOneBlobUnderManyNames: a blob that a tree names a thousand times is held once.
func TestOneBlobUnderManyNames(t *testing.T) { //nolint:paralleltest // measures what the process allocates
	repo := bare(t)
	blob := pipe(t, repo, "", make([]byte, 15<<20), "hash-object", "-w", "--stdin")
	var list strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&list, "100644 blob %s\tf%04d\n", blob, i)
	}
	commitTree(t, repo, pipe(t, repo, "", []byte(list.String()), "mktree"))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	brought(t, source(t, git.Config{URL: repo}))
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<30 {
		t.Fatalf("1000 names of one blob of 15 MiB took %d MiB", took>>20)
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
