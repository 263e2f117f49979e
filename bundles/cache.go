// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	cacheMagic = "muster-release/2"
	cacheExt   = ".release"
	// cacheKeep is how many releases of each level stay: after a revocation the newest unrevoked one serves.
	cacheKeep = 3
	maxCached = 2*maxTotalBytes + 2*maxReleaseDoc
)

// Cache keeps the last good releases of each level on disk: one checksummed file each, written aside, synced
// and renamed. Nothing in it is believed: Load verifies it all again.
type Cache struct{ dir string }

// NewCache answers the cache in a directory (musterd: /var/lib/muster/cache).
func NewCache(dir string) *Cache { return &Cache{dir: dir} }

func cacheName(v *Verified) string {
	// Zero-padded, so that names sort as (epoch, sequence) does.
	return fmt.Sprintf("%s-%016d-%016d-%s%s", v.level, v.release.Epoch, v.release.Sequence,
		strings.TrimPrefix(v.digest, "sha256:")[:16], cacheExt)
}

// Store keeps v. Storing the same bytes again writes nothing.
func (c *Cache) Store(v *Verified) error {
	packed, err := pack(v.revision, v.documents(), &v.files)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(c.dir, cacheName(v))
	if !packed.isAt(path) {
		if err := writeAtomic(path, 0o600, packed.write); err != nil {
			return err
		}
	}
	v.stored = packed.index.kept(path, packed.offset(), v.files.list)
	return c.prune(v.level)
}

// names lists the files of one level, newest first.
func (c *Cache) names(level Level) ([]string, error) {
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), string(level)+"-") && strings.HasSuffix(e.Name(), cacheExt) {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out, nil
}

func (c *Cache) prune(level Level) error {
	// What a crash left half-written has the name of a temporary file and nobody else removes it.
	if left, err := filepath.Glob(filepath.Join(c.dir, tempPrefix+"*")); err == nil {
		for _, p := range left {
			_ = os.Remove(p)
		}
	}
	names, err := c.names(level)
	if err != nil || len(names) <= cacheKeep {
		return err
	}
	for _, n := range names[cacheKeep:] {
		err = errors.Join(err, os.Remove(filepath.Join(c.dir, n)))
	}
	return err
}

// CacheProblem is a cached release that could not be used: torn, revoked, no longer trusted.
type CacheProblem struct { //nolint:errname // one of several things found, listed beside a result
	File string
	Err  error
}

func (p *CacheProblem) Error() string { return p.File + ": " + p.Err.Error() }

// Unwrap answers the refusal.
func (p *CacheProblem) Unwrap() error { return p.Err }

// Load answers the newest cached release of a level that still verifies, and what was wrong with newer ones.
// Marks do not apply (the cache may hold an older release than the mark, and that is its purpose); the clock's
// floor does. It answers nil when there is none.
func (c *Cache) Load(level Level, trust *Trust, seen Seen, now time.Time) (*Verified, []*CacheProblem, error) {
	names, err := c.names(level)
	if err != nil {
		return nil, nil, err
	}
	var problems []*CacheProblem
	for _, n := range names {
		v, err := c.load(n, level, trust, seen, now)
		if err == nil {
			return v, problems, nil
		}
		problems = append(problems, &CacheProblem{File: n, Err: err})
	}
	return nil, problems, nil
}

func (c *Cache) load(name string, level Level, trust *Trust, seen Seen, now time.Time) (*Verified, error) {
	data, err := readFileBounded(filepath.Join(c.dir, name), maxCached)
	if err != nil {
		return nil, asTorn(err, name)
	}
	raw, index, offset, err := unpack(data)
	if err != nil {
		return nil, asTorn(err, name)
	}
	v, err := verifyHeld(raw, nil, trust, seen, now)
	if err != nil {
		return nil, err
	}
	if level == LevelEnforce && v.level != LevelEnforce {
		return nil, refuse(ErrTooFewSigners, "%s has enough signers for audit only now", name)
	}
	v.stored = index.kept(filepath.Join(c.dir, name), offset, v.files.list)
	return v, nil
}
