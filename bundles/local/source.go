// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package local reads releases from this machine's file system, for hosts that nothing but a carried medium reaches:
// a directory that holds a release (dir:///path) or one file that does (bundle:///path). It decides nothing about
// trust, and no link leads it out of the directory.
package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/muster-fleet/muster/bundles"
)

const (
	schemeDir  = "dir://"
	schemeFile = "bundle://"
)

// Is says whether a source's URL leads here.
func Is(raw string) bool {
	return strings.HasPrefix(raw, schemeDir) || strings.HasPrefix(raw, schemeFile)
}

// maxFile bounds the file, compressed; what it unpacks to is bounded while unpacking.
const maxFile = 64 << 20

// Source implements bundles.Source.
type Source struct {
	path string
	dir  bool

	mu    sync.Mutex
	state string // of the file when rev was computed
	rev   bundles.Revision

	accepted bundles.Revision
}

// New answers a source; the path must be absolute.
func New(raw string) (*Source, error) {
	path, dir := strings.CutPrefix(raw, schemeDir)
	if !dir {
		path = strings.TrimPrefix(raw, schemeFile)
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%q needs an absolute path, as in dir:///srv/policy", raw)
	}
	return &Source{path: filepath.Clean(path), dir: dir}, nil
}

// Accepted implements bundles.Follower.
func (s *Source) Accepted(rev bundles.Revision, _ *bundles.Kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted = rev
}

// Latest looks at names, sizes and times; a file is read again only when these changed.
func (s *Source) Latest(ctx context.Context) (bundles.Revision, error) {
	if s.dir {
		return s.latestDir(ctx)
	}
	return s.latestFile()
}

func (s *Source) latestFile() (bundles.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", bundles.NewRefusal(bundles.ErrNoRelease, nil, "there is no file %s", s.path)
	}
	if err != nil {
		return "", err
	}
	state := fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
	if s.rev != "" && s.state == state {
		return s.rev, nil
	}
	data, err := readFile(s.path)
	if err != nil {
		return "", err
	}
	s.state, s.rev = state, revisionOf(data)
	return s.rev, nil
}

func revisionOf(data []byte) bundles.Revision {
	return bundles.Revision(bundles.DigestOf(data))
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, bundles.NewRefusal(bundles.ErrLimits, nil, "%s is not a regular file of at most %d bytes", path, maxFile)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && int64(len(data)) != info.Size() {
		err = fmt.Errorf("%s is being written", path)
	}
	return data, err
}

func (s *Source) latestDir(ctx context.Context) (bundles.Revision, error) {
	root, err := s.openRoot()
	if err != nil {
		return "", err
	}
	defer root.Close()
	h := sha256.New()
	err = bundles.WalkRelease(ctx, root.FS(), func(name string, info fs.FileInfo) error {
		_, err := fmt.Fprintf(h, "%q %d %d\n", name, info.Size(), info.ModTime().UnixNano())
		return err
	})
	return bundles.Revision("dir:" + hex.EncodeToString(h.Sum(nil))), err
}

func (s *Source) openRoot() (*os.Root, error) {
	root, err := os.OpenRoot(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, bundles.NewRefusal(bundles.ErrNoRelease, nil, "there is no directory %s", s.path)
	}
	return root, err
}

// Fetch reads the whole release into memory, so that what is verified is what is used.
func (s *Source) Fetch(ctx context.Context, rev bundles.Revision) (*bundles.Raw, error) {
	files, err := s.read(ctx, rev)
	if err != nil {
		return nil, err
	}
	raw := &bundles.Raw{Revision: rev, FS: bundles.NewMemFS(files)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accepted != "" && s.accepted != rev {
		raw.AncestryUnknown = errNoHistory
	}
	return raw, nil
}

// ErrMoved says that the release was replaced between the look and the reading: look again.
var ErrMoved = errors.New("the release changed between the poll and the fetch")

var errNoHistory = errors.New("a directory or a file has no history")

func (s *Source) read(ctx context.Context, rev bundles.Revision) (map[string][]byte, error) {
	if !s.dir {
		data, err := readFile(s.path)
		if err != nil {
			return nil, err
		}
		if revisionOf(data) != rev {
			return nil, fmt.Errorf("%s: %w", s.path, ErrMoved)
		}
		return bundles.ReadArchive(bytes.NewReader(data), bundles.Whole)
	}
	root, err := s.openRoot()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	files, err := bundles.ReadRelease(ctx, root.FS())
	if err != nil {
		return nil, err
	}
	// A directory that is being written is read again, rather than refused for good.
	if now, err := s.latestDir(ctx); err != nil || now != rev {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.path, ErrMoved), err)
	}
	return files, nil
}

var (
	_ bundles.Source   = (*Source)(nil)
	_ bundles.Follower = (*Source)(nil)
)
