// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/go-git/go-git/v5/storage/memory"
	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/bundles"
)

// ChannelConfig is a channel seen by its publisher. Without credentials ssh uses the agent and the user's
// known_hosts, as git does.
type ChannelConfig struct {
	URL         string
	Channel     string
	Credentials Credentials
	// Username and Password authenticate over HTTP when there are no files, as in CI.
	Username, Password string
	// SignCommit makes an armored signature over a commit (SSHSIG in namespace git, or OpenPGP); nil leaves it unsigned.
	SignCommit func(payload []byte) ([]byte, error)
}

// Channel implements bundles.Channel over one branch. The branch is fetched whole and kept in memory: what is
// pushed next to it must never share a directory with the git command.
type Channel struct {
	cfg    ChannelConfig
	auth   transport.AuthMethod
	ca     []byte
	store  *memory.Storage
	repo   *gogit.Repository
	branch plumbing.ReferenceName
}

const (
	remoteName = "channel"
	localRef   = plumbing.ReferenceName("refs/heads/next")
	trackRef   = plumbing.ReferenceName("refs/remotes/channel/tip")
)

// OpenChannel checks the configuration; Refresh is the first to touch the network.
func OpenChannel(cfg ChannelConfig) (*Channel, error) {
	if !bundles.ValidName(cfg.Channel) {
		return nil, fmt.Errorf("channel %q is not a name", cfg.Channel)
	}
	ep, err := transport.NewEndpoint(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("the repository's URL is not understood: %w", err)
	}
	auth, err := cfg.Credentials.publisherAuth(ep)
	if err != nil {
		return nil, err
	}
	if cfg.Password != "" && auth == nil && (ep.Protocol == "https" || ep.Protocol == "http" && loopback(ep.Host)) {
		auth = &githttp.BasicAuth{Username: cmp.Or(cfg.Username, "git"), Password: cfg.Password}
	}
	ca, err := cfg.Credentials.CABundle()
	if err != nil {
		return nil, err
	}
	c := &Channel{cfg: cfg, auth: auth, ca: ca, branch: Branch(cfg.Channel)}
	return c, c.reset()
}

func (c *Channel) reset() error {
	c.store = memory.NewStorage()
	repo, err := gogit.Init(c.store, nil)
	if err != nil {
		return err
	}
	_, err = repo.CreateRemote(&config.RemoteConfig{Name: remoteName, URLs: []string{c.cfg.URL}})
	c.repo = repo
	return err
}

// Refresh fetches the branch.
func (c *Channel) Refresh(ctx context.Context) (bundles.Revision, error) {
	err := c.repo.FetchContext(ctx, &gogit.FetchOptions{
		RemoteName: remoteName,
		RefSpecs:   []config.RefSpec{config.RefSpec("+" + string(c.branch) + ":" + string(trackRef))},
		Auth:       c.auth, CABundle: c.ca, Tags: gogit.NoTags, Force: true,
	})
	var noMatch gogit.NoMatchingRefSpecError
	switch {
	case errors.Is(err, transport.ErrEmptyRemoteRepository), errors.As(err, &noMatch):
		// The branch may have been deleted since: start from nothing.
		return "", c.reset()
	case err != nil && !errors.Is(err, gogit.NoErrAlreadyUpToDate):
		return "", fmt.Errorf("%s: %w", ShownURL(c.cfg.URL), err)
	}
	ref, err := c.store.Reference(trackRef)
	if err != nil {
		return "", err
	}
	return bundles.Revision(ref.Hash().String()), nil
}

// Release reads one revision out of what Refresh fetched.
func (c *Channel) Release(rev bundles.Revision) (*bundles.Raw, bundles.Revision, error) {
	o := &objects{store: c.store}
	commit, err := o.commit(plumbing.NewHash(string(rev)))
	if err != nil {
		return nil, "", fmt.Errorf("revision %s: %w", rev, err)
	}
	var parent bundles.Revision
	if len(commit.ParentHashes) > 0 {
		parent = bundles.Revision(commit.ParentHashes[0].String())
	}
	files, err := o.files(commit)
	if err != nil {
		return nil, parent, err
	}
	if err := o.keepSigned(files, commit.Hash); err != nil {
		return nil, parent, err
	}
	return &bundles.Raw{Revision: rev, FS: bundles.NewMemFS(files)}, parent, nil
}

// Rewritten says whether the branch, fetched whole by Refresh, does not go back to an older revision.
func (c *Channel) Rewritten(_ context.Context, tip, old bundles.Revision) (bool, error) {
	if !plumbing.IsHash(string(old)) {
		return false, fmt.Errorf("%s is no commit", old)
	}
	return (&objects{store: c.store}).rewritten(plumbing.NewHash(string(tip)), plumbing.NewHash(string(old)))
}

// Append commits the files and pushes them as a fast-forward of parent. The server compares and swaps.
func (c *Channel) Append(ctx context.Context, parent bundles.Revision, files map[string][]byte, message string, when time.Time) (bundles.Revision, error) {
	tree, err := c.writeTree(files, "")
	if err != nil {
		return "", err
	}
	sig := object.Signature{Name: "muster", Email: "muster@localhost", When: when.UTC()}
	commit := &object.Commit{Author: sig, Committer: sig, Message: message, TreeHash: tree}
	if parent != "" {
		commit.ParentHashes = []plumbing.Hash{plumbing.NewHash(string(parent))}
	}
	if err := c.sign(commit); err != nil {
		return "", err
	}
	obj := c.store.NewEncodedObject()
	if err := commit.Encode(obj); err != nil {
		return "", err
	}
	hash, err := c.store.SetEncodedObject(obj)
	if err != nil {
		return "", err
	}
	if err := c.store.SetReference(plumbing.NewHashReference(localRef, hash)); err != nil {
		return "", err
	}
	err = c.repo.PushContext(ctx, &gogit.PushOptions{
		RemoteName: remoteName, Auth: c.auth, CABundle: c.ca,
		RefSpecs: []config.RefSpec{config.RefSpec(string(localRef) + ":" + string(c.branch))},
	})
	if err != nil && !errors.Is(err, gogit.NoErrAlreadyUpToDate) {
		return "", classifyPush(fmt.Errorf("%s: %w", ShownURL(c.cfg.URL), err))
	}
	return bundles.Revision(hash.String()), nil
}

func (c *Channel) sign(commit *object.Commit) error {
	if c.cfg.SignCommit == nil {
		return nil
	}
	obj := &plumbing.MemoryObject{}
	if err := commit.EncodeWithoutSignature(obj); err != nil {
		return err
	}
	r, err := obj.Reader()
	if err != nil {
		return err
	}
	payload, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	armored, err := c.cfg.SignCommit(payload)
	commit.PGPSignature = string(armored)
	return err
}

// writeTree stores the files below prefix as Git trees.
func (c *Channel) writeTree(files map[string][]byte, prefix string) (plumbing.Hash, error) {
	tree := &object.Tree{}
	dirs := map[string]bool{}
	for p, data := range files {
		rest, ok := strings.CutPrefix(p, prefix)
		if !ok {
			continue
		}
		if dir, _, deeper := strings.Cut(rest, "/"); deeper {
			dirs[dir] = true
			continue
		}
		h, err := c.writeBlob(data)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		tree.Entries = append(tree.Entries, object.TreeEntry{Name: rest, Mode: filemode.Regular, Hash: h})
	}
	for dir := range dirs {
		h, err := c.writeTree(files, prefix+dir+"/")
		if err != nil {
			return plumbing.ZeroHash, err
		}
		tree.Entries = append(tree.Entries, object.TreeEntry{Name: dir, Mode: filemode.Dir, Hash: h})
	}
	// Git sorts a directory as if its name ended in a slash.
	key := func(e object.TreeEntry) string {
		if e.Mode == filemode.Dir {
			return e.Name + "/"
		}
		return e.Name
	}
	slices.SortFunc(tree.Entries, func(a, b object.TreeEntry) int { return strings.Compare(key(a), key(b)) })
	obj := c.store.NewEncodedObject()
	if err := tree.Encode(obj); err != nil {
		return plumbing.ZeroHash, err
	}
	return c.store.SetEncodedObject(obj)
}

func (c *Channel) writeBlob(data []byte) (plumbing.Hash, error) {
	obj := c.store.NewEncodedObject()
	obj.SetType(plumbing.BlobObject)
	w, err := obj.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := w.Write(data); err != nil {
		return plumbing.ZeroHash, err
	}
	if err := w.Close(); err != nil {
		return plumbing.ZeroHash, err
	}
	return c.store.SetEncodedObject(obj)
}

// sshAuth is a host's ssh configuration in the form that go-git's client takes.
type sshAuth struct{ cfg *ssh.ClientConfig }

func (a sshAuth) Name() string                             { return "ssh-key-file" }
func (a sshAuth) String() string                           { return a.Name() }
func (a sshAuth) ClientConfig() (*ssh.ClientConfig, error) { return a.cfg, nil }

var _ gitssh.AuthMethod = sshAuth{}
