// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-git/go-billy/v5/memfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/memory"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want Fault
	}{
		{nil, FaultNone},
		{git.NoErrAlreadyUpToDate, FaultNone},
		{plumbing.ErrObjectNotFound, FaultRace},
		{fmt.Errorf("push: %w", plumbing.ErrObjectNotFound), FaultRace},
		{errors.New("non-fast-forward update: refs/heads/status"), FaultRace},
		{errors.New("command error on refs/heads/status: failed to update ref"), FaultRace},
		{errors.New("command error on refs/heads/status: cannot lock ref 'refs/heads/status': is at 1 but expected 2"), FaultRace},
		{errors.New("command error on refs/heads/status: fetch first"), FaultRace},
		{errors.New("command error on refs/heads/status: incorrect old value provided"), FaultRace},
		{errors.New("command error on refs/heads/status: reference already exists"), FaultRace},
		{errors.New("remote ref refs/heads/status required to be 1 but is 2"), FaultRace},
		{errors.New("ERR upload-pack: not our ref 0000"), FaultRace},
		{&Error{Op: "push", Err: errors.New("stale info")}, FaultRace},
		{errors.New("command error on refs/heads/status: non-fast-forward"), FaultRefused},
		{errors.New("command error on refs/heads/main: protected branch hook declined"), FaultRefused},
		{errors.New("command error on refs/heads/main: pre-receive hook declined"), FaultRefused},
		{errors.New("remote: error: GH006: Protected branch update failed for refs/heads/status"), FaultRefused},
		{errors.New("remote: error: GH013: Repository rule violations found"), FaultRefused},
		{errors.New("command error on refs/muster/hosts/00/a: deny updating a hidden ref"), FaultRefused},
		{errors.New("cannot lock ref 'refs/a/b': 'refs/a' exists; cannot create 'refs/a/b'"), FaultRefused},
		{transport.ErrAuthenticationRequired, FaultRefused},
		{transport.ErrAuthorizationFailed, FaultRefused},
		{transport.ErrRepositoryNotFound, FaultRefused},
		{errors.New("dial tcp: connection refused"), FaultUnreachable},
		{errors.New("unexpected client error: unexpected requesting status code: 503"), FaultUnreachable},
		{context.DeadlineExceeded, FaultUnreachable},
	} {
		if got := Classify(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

// Every way in which go-git's own push loses a race against a real server is seen as a race: many writers on
// one branch, shallow and not.
func TestClassifyRealContention(t *testing.T) {
	t.Parallel()
	for _, depth := range []int{0, 1} {
		t.Run(fmt.Sprintf("depth-%d", depth), func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			seed(t, s)
			var mu sync.Mutex
			faces := map[string]int{}
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() {
					for {
						err := porcelainPush(s.url, depth, fmt.Sprintf("f%d", i))
						if err == nil {
							return
						}
						mu.Lock()
						faces[fmt.Sprintf("%.60s", err)]++
						mu.Unlock()
						if got := Classify(err); got != FaultRace {
							t.Errorf("%v: %v", err, got)
							return
						}
					}
				})
			}
			wg.Wait()
			t.Logf("lost races: %v", faces)
			if len(faces) == 0 {
				t.Error("nobody lost a race: the test tests nothing")
			}
		})
	}
}

// porcelainPush is what an agent without refs of its own would do: clone, commit, push.
func porcelainPush(url string, depth int, name string) error {
	fs := memfs.New()
	repo, err := git.Clone(memory.NewStorage(), fs, &git.CloneOptions{
		URL: url, Depth: depth, SingleBranch: true, ReferenceName: StatusBranch,
	})
	if err != nil {
		return err
	}
	f, err := fs.Create(name)
	if err != nil {
		return err
	}
	if err := errors.Join(func() error { _, err := f.Write([]byte(name)); return err }(), f.Close()); err != nil {
		return err
	}
	wt, err := repo.Worktree()
	if err != nil {
		return err
	}
	if _, err := wt.Add(name); err != nil {
		return err
	}
	by := &object.Signature{Name: name, Email: name, When: time.Unix(0, 0)}
	if _, err := wt.Commit(name, &git.CommitOptions{Author: by}); err != nil {
		return err
	}
	return repo.Push(&git.PushOptions{RefSpecs: []config.RefSpec{"refs/heads/status:refs/heads/status"}})
}

// seed puts one commit on the status branch.
func seed(t *testing.T, s *server) {
	t.Helper()
	work := t.TempDir()
	runGit(t, work, "init", "-q", "-b", "status")
	runGit(t, work, "commit", "-q", "--allow-empty", "-m", "start")
	runGit(t, work, "push", "-q", s.dir, "status")
}

// What a server refuses for good is no race, whatever words it uses.
func TestClassifyRealRefusals(t *testing.T) {
	t.Parallel()
	for name, setUp := range map[string]func(*testing.T, *server){
		"hook": func(t *testing.T, s *server) {
			if err := os.WriteFile(filepath.Join(s.dir, "hooks", "pre-receive"), []byte("#!/bin/sh\necho no >&2\nexit 1\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		},
		"hidden":    func(t *testing.T, s *server) { runGit(t, s.dir, "config", "receive.hideRefs", "refs/muster") },
		"no pushes": func(t *testing.T, s *server) { runGit(t, s.dir, "config", "http.receivepack", "false") },
		"gone": func(t *testing.T, s *server) {
			if err := os.RemoveAll(s.dir); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := newServer(t), newClock()
			setUp(t, s)
			h := newHost(t, s, c, "web-1", enrol(t, "web-1"))
			err := h.pub.Report(context.Background(), testReport("web-1", c))
			var e *Error
			if !errors.As(err, &e) || e.Fault != FaultRefused || e.Hint() == "" {
				t.Errorf("%v", err)
			}
			if h.pub.Tries() != 1 || !h.pub.Pending() {
				t.Errorf("%d tries, pending %v", h.pub.Tries(), h.pub.Pending())
			}
		})
	}
}
