// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/muster-fleet/muster/bundles"
)

// Repository is a policy repository on this machine. Only objects are read, never the working tree, so that
// what is published does not depend on a checkout.
type Repository struct{ repo *gogit.Repository }

// Commit is one resolved commit.
type Commit struct {
	Hash string
	When time.Time
	c    *object.Commit
}

// OpenRepository opens the repository around dir.
func OpenRepository(dir string) (*Repository, error) {
	r, err := gogit.PlainOpenWithOptions(dir, &gogit.PlainOpenOptions{DetectDotGit: true, EnableDotGitCommonDir: true})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return &Repository{repo: r}, nil
}

// StateDir is a directory below .git for what commands remember beside the repository.
func (r *Repository) StateDir() (string, error) {
	s, ok := r.repo.Storer.(*filesystem.Storage)
	if !ok {
		return "", errors.New("the repository is not on a file system")
	}
	return filepath.Join(s.Filesystem().Root(), "muster"), nil
}

// Names answers the branches and tags of the repository, those of its remotes too.
func (r *Repository) Names() ([]string, error) {
	refs, err := r.repo.References()
	if err != nil {
		return nil, err
	}
	var names []string
	err = refs.ForEach(func(ref *plumbing.Reference) error {
		if n := ref.Name(); ref.Type() == plumbing.HashReference && (n.IsBranch() || n.IsTag() || n.IsRemote()) {
			names = append(names, n.Short())
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// Resolve resolves a revision ("HEAD", a branch, a tag, a hash) once; the hash is used afterwards.
func (r *Repository) Resolve(rev string) (*Commit, error) {
	h, err := r.repo.ResolveRevision(plumbing.Revision(rev))
	if err != nil {
		return nil, fmt.Errorf("revision %q: %w", rev, err)
	}
	c, err := r.repo.CommitObject(*h)
	if err != nil {
		return nil, fmt.Errorf("revision %q: %w", rev, err)
	}
	return &Commit{Hash: h.String(), When: c.Committer.When, c: c}, nil
}

// File answers one file of a commit.
func (c *Commit) File(path string) ([]byte, error) {
	f, err := c.c.File(path)
	if err != nil {
		return nil, fmt.Errorf("%s is not in commit %.12s: %w", path, c.Hash, err)
	}
	return blobOf(f)
}

func blobOf(f *object.File) ([]byte, error) {
	if f.Size > maxBlob {
		return nil, bundles.NewRefusal(bundles.ErrLimits, nil, "%s is larger than %d bytes", f.Name, maxBlob)
	}
	rd, err := f.Reader()
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	return io.ReadAll(rd)
}

// Files answers the regular files below root, by their path from there. Everything that a release cannot hold
// is named at once.
func (c *Commit) Files(root string) (map[string][]byte, error) {
	tree, err := c.c.Tree()
	if err != nil {
		return nil, err
	}
	if root != "." {
		if tree, err = tree.Tree(root); err != nil {
			return nil, fmt.Errorf("root %s is not in commit %.12s: %w", root, c.Hash, err)
		}
	}
	out := map[string][]byte{}
	var problems []error
	w := object.NewTreeWalker(tree, true, nil)
	defer w.Close()
	for {
		name, entry, err := w.Next()
		if errors.Is(err, io.EOF) {
			return out, errors.Join(problems...)
		}
		if err != nil {
			return nil, err
		}
		if entry.Mode == filemode.Dir {
			continue
		}
		if err := addFile(out, tree, name, entry); err != nil {
			problems = append(problems, err)
		}
	}
}

func addFile(out map[string][]byte, tree *object.Tree, name string, entry object.TreeEntry) error {
	if err := bundles.CheckPath(name); err != nil {
		return err
	}
	if err := checkEntry("", object.TreeEntry{Name: "x", Mode: entry.Mode}, map[string]bool{}); err != nil {
		return bundles.NewRefusal(bundles.ErrPath, nil, "%s is not a regular file", name)
	}
	f, err := tree.TreeEntryFile(&entry)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	data, err := blobOf(f)
	if err != nil {
		return err
	}
	out[name] = data
	return nil
}

// ErrNoRemote says that the repository knows no remote of that name.
var ErrNoRemote = errors.New("there is no such remote")

// RemoteURL answers the URL of a named remote; a URL or path answers itself.
func (r *Repository) RemoteURL(remote string) (string, error) {
	if strings.Contains(remote, "/") || strings.Contains(remote, ":") {
		return remote, nil
	}
	rem, err := r.repo.Remote(remote)
	if err != nil {
		return "", fmt.Errorf("%w: %q", ErrNoRemote, remote)
	}
	urls := rem.Config().URLs
	if len(urls) == 0 {
		return "", fmt.Errorf("remote %q has no URL", remote)
	}
	return urls[0], nil
}

// PublicURL is a URL without user and password, as it may stand in a release; "" for a path on this machine.
func PublicURL(raw string) string {
	ep, err := transport.NewEndpoint(raw)
	if err != nil || ep.Protocol == "file" {
		return ""
	}
	ep.User, ep.Password = "", ""
	return ep.String()
}

// IsSSH says whether a URL leads through ssh; "git@example.com:policy.git" does.
func IsSSH(raw string) bool {
	ep, err := transport.NewEndpoint(raw)
	return err == nil && ep.Protocol == "ssh"
}

// ShownURL is a URL as it may stand in an error.
func ShownURL(raw string) string {
	if u := PublicURL(raw); u != "" {
		return u
	}
	return raw
}

// OptionalFiles is Files of a directory that need not exist.
func (c *Commit) OptionalFiles(root string) (map[string][]byte, error) {
	files, err := c.Files(root)
	if errors.Is(err, object.ErrDirectoryNotFound) {
		return nil, nil
	}
	return files, err
}
