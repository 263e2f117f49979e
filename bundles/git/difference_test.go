// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git_test

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/git"
)

// difference is a host that follows a repository and keeps what it accepts.
type difference struct {
	fleet  *bundlestest.Fleet
	trust  *bundles.Trust
	repo   string
	cache  string
	source *git.Source
	tip    string
	files  map[string][]byte
	seq    int64
}

// incompressible policies: what is sent of them shows in bytes.
func noisy(n int) map[string][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	files := map[string][]byte{}
	for i := range n {
		text := bundlestest.Policy(fmt.Sprintf("p%03d", i))
		for range 40 {
			text = fmt.Appendf(text, "# %016x%016x\n", random.Uint64(), random.Uint64())
		}
		files[fmt.Sprintf("team%d/p%03d.yaml", i%7, i)] = text
	}
	return files
}

func (d *difference) commit(t *testing.T) {
	t.Helper()
	d.seq++
	var parents []string
	if d.tip != "" {
		parents = append(parents, d.tip)
	}
	d.tip = commit(t, d.repo, d.fleet.Sign(t, d.files, d.fleet.Doc(t, d.files, d.seq), "alice"), parents...)
}

// accept fetches, verifies and keeps; every file must be what was published.
func (d *difference) accept(t *testing.T) {
	t.Helper()
	v, err := bundles.Verify(brought(t, d.source), d.trust, bundles.Seen{}, bundlestest.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := bundles.NewCache(d.cache).Store(v); err != nil {
		t.Fatal(err)
	}
	v.Unload()
	d.source.Accepted(v.Revision(), v.Kept())
	got := map[string][]byte{}
	err = fs.WalkDir(v.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			got[name], err = fs.ReadFile(v.FS(), name)
		}
		return err
	})
	if err != nil || !maps.EqualFunc(got, d.files, func(a, b []byte) bool { return string(a) == string(b) }) {
		t.Fatalf("%d files of %d, or others than published: %v", len(got), len(d.files), err)
	}
}

func newDifference(t *testing.T, cfg func(repo string) git.Config) *difference {
	t.Helper()
	f := bundlestest.New(t, "alice")
	d := &difference{fleet: f, trust: f.Trust(t, 1, 1, ""), repo: bare(t), cache: t.TempDir(), files: noisy(300)}
	d.source = source(t, cfg(d.repo))
	d.commit(t)
	d.accept(t)
	return d
}

// TestFetchDifference: of an accepted release only what changed is sent again, over every transport. Files move, come, go
// and come back.
func TestFetchDifference(t *testing.T) {
	t.Parallel()
	changes := func(t *testing.T, d *difference) {
		t.Helper()
		d.files["team1/p001.yaml"] = bundlestest.Policy("another")
		d.commit(t)
		d.accept(t)
		d.files["team9/moved.yaml"] = d.files["team2/p002.yaml"]
		delete(d.files, "team2/p002.yaml")
		delete(d.files, "team3/p003.yaml")
		d.commit(t)
		d.accept(t)
		d.files["team1/p001.yaml"] = noisy(300)["team1/p001.yaml"] // of the release before the last
		d.commit(t)
		d.accept(t)
	}
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		changes(t, newDifference(t, func(repo string) git.Config { return git.Config{URL: "file://" + repo} }))
	})
	t.Run("ssh", func(t *testing.T) {
		t.Parallel()
		srv := serveSSH(t)
		changes(t, newDifference(t, func(repo string) git.Config { return git.Config{URL: srv.url(repo), Credentials: srv.creds} }))
	})
	t.Run("http", func(t *testing.T) {
		t.Parallel()
		var srv *httpServer
		d := newDifference(t, func(repo string) git.Config {
			srv = serveHTTP(t, repo, "", "")
			return git.Config{URL: srv.url(repo)}
		})
		whole := srv.sent.Load()
		changes(t, d)
		t.Logf("the whole: %d bytes; three changes: %d bytes", whole, srv.sent.Load()-whole)
		if sent := srv.sent.Load() - whole; sent > whole/3 {
			t.Errorf("three changes sent %d bytes, the whole %d", sent, whole)
		}
	})
}

// TestFetchDifferenceOrWhole: where the cache or the server has lost what the other thinks that it has, everything is
// fetched, and nothing is believed.
func TestFetchDifferenceOrWhole(t *testing.T) {
	t.Parallel()
	follow := func(t *testing.T) *difference {
		t.Helper()
		d := newDifference(t, func(repo string) git.Config { return git.Config{URL: "file://" + repo} })
		d.files["new.yaml"] = bundlestest.Policy("new")
		return d
	}
	t.Run("history rewritten", func(t *testing.T) {
		t.Parallel()
		d := follow(t)
		d.tip = ""
		d.commit(t)
		run(t, d.repo, "reflog", "expire", "--expire=now", "--all")
		run(t, d.repo, "gc", "--quiet", "--prune=now")
		d.accept(t)
	})
	t.Run("other bytes in the cache", func(t *testing.T) {
		t.Parallel()
		d := follow(t)
		names, err := filepath.Glob(filepath.Join(d.cache, "*.release"))
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		data, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-10] ^= 1
		write(t, names[0], data, 0o600)
		d.commit(t)
		v, err := bundles.Verify(brought(t, d.source), d.trust, bundles.Seen{}, bundlestest.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := bundles.NewCache(d.cache).Store(v); bundles.RefusalName(err) != "torn" {
			t.Fatalf("stored out of a damaged cache: %v", err)
		}
		if _, err := v.Policies(nil); bundles.RefusalName(err) != "torn" {
			t.Fatalf("read out of a damaged cache: %v", err)
		}
		d.source.Accepted(bundles.Revision("unknown"), nil)
		d.accept(t)
	})
}
