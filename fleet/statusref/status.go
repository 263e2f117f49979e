// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/muster-fleet/muster/fleet"
)

// The files of the status branch.
const (
	hostsDir   = "hosts"
	rollFile   = "roll.json"
	readmeFile = "README.md"
)

// ErrNoStatus says that nobody has folded yet.
var ErrNoStatus = errors.New("the repository has no branch \"status\" yet")

// errUnusable says that the branch holds something that is no status.
var errUnusable = errors.New("the branch \"status\" is unusable")

// statusLimits hold for one commit of the status branch.
var statusLimits = limits{pack: 256 << 20, object: fleet.MaxRoll, total: 512 << 20, count: 2 << 20}

// status is the content of the status branch, as found and believed by nobody.
type status struct {
	store   *memory.Storage
	roll    []byte
	rollSig []byte
	kept    []found
	// taken are the blobs and shards that were read already. A report names its one host and a signature is
	// over one report, so what appears twice is somebody's trick: a tree may name one blob a million times.
	taken map[plumbing.Hash]bool
}

// readStatus fetches one commit deep. A zero tip gives an empty status. What is on the branch but no status at
// all, or beyond the limits, is errUnusable: the next fold writes over it.
func readStatus(ctx context.Context, r Remote, a advert, tip plumbing.Hash) (*status, error) {
	s := &status{store: memory.NewStorage(), taken: map[plumbing.Hash]bool{}}
	if tip.IsZero() {
		return s, nil
	}
	err := r.fetch(ctx, a, []plumbing.Hash{tip}, statusLimits, s.store)
	if errors.Is(err, ErrLimits) {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	if err != nil {
		return nil, err
	}
	if err := s.read(tip); err != nil {
		// Not wrapped: a missing object is no lost race here.
		return nil, fmt.Errorf("%w: %s", errUnusable, oneLine(err.Error()))
	}
	return s, nil
}

func (s *status) read(tip plumbing.Hash) error {
	c, err := object.GetCommit(s.store, tip)
	if err != nil {
		return err
	}
	root, err := object.GetTree(s.store, c.TreeHash)
	if err != nil {
		return err
	}
	return s.readRoot(root)
}

// readRoot takes what it knows; what somebody else put on the branch is dropped by the next fold.
func (s *status) readRoot(root *object.Tree) error {
	for _, e := range root.Entries {
		var err error
		switch {
		case e.Name == rollFile && e.Mode == filemode.Regular:
			s.roll, err = readBlob(s.store, e.Hash)
		case e.Name == rollFile+".sig" && e.Mode == filemode.Regular:
			s.rollSig, err = readBlob(s.store, e.Hash)
		case e.Name == hostsDir && e.Mode == filemode.Dir:
			err = s.readHosts(e.Hash)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *status) readHosts(hash plumbing.Hash) error {
	top, err := object.GetTree(s.store, hash)
	if err != nil {
		return err
	}
	for _, e := range top.Entries {
		if e.Mode != filemode.Dir || len(e.Name) != 2 || s.taken[e.Hash] {
			continue
		}
		s.taken[e.Hash] = true
		shard, err := object.GetTree(s.store, e.Hash)
		if err != nil {
			return err
		}
		signatures := map[string]plumbing.Hash{}
		for _, f := range shard.Entries {
			if report, is := strings.CutSuffix(f.Name, ".sig"); is && f.Mode == filemode.Regular {
				signatures[report] = f.Hash
			}
		}
		for _, f := range shard.Entries {
			s.readHost(signatures, e.Name, f)
		}
	}
	return nil
}

// readHost keeps a report that lies in its place with its signature beside it.
func (s *status) readHost(signatures map[string]plumbing.Hash, shard string, e object.TreeEntry) {
	id, ok := strings.CutSuffix(e.Name, ".json")
	if !ok || e.Mode != filemode.Regular || fleet.CheckHostID(id) != nil || fleet.Shard(id) != shard {
		return
	}
	signature, ok := signatures[e.Name]
	if !ok || s.taken[e.Hash] || s.taken[signature] || s.larger(e.Hash) || s.larger(signature) {
		return
	}
	s.taken[e.Hash], s.taken[signature] = true, true
	f := found{
		SignedReport: fleet.SignedReport{Ref: id, Kept: true},
		report:       e.Hash, signature: signature,
	}
	if f, err := f.load(s.store); err == nil {
		s.kept = append(s.kept, f)
	}
}

// larger is true for what no report and no signature is as large as, and for what is not there.
func (s *status) larger(h plumbing.Hash) bool {
	size, err := s.store.EncodedObjectSize(h)
	return err != nil || size > fleet.MaxReport
}

// Status is the status branch as a reader gets it.
type Status struct {
	Commit        plumbing.Hash
	Roll, RollSig []byte
	Reports       []fleet.SignedReport
}

// ReadStatus fetches the status branch. Nothing in it is verified yet.
func ReadStatus(ctx context.Context, r Remote) (*Status, error) {
	a, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	tip := a.refs[StatusBranch]
	if tip.IsZero() {
		return nil, fmt.Errorf("%w: no host has reported, or no collector has run", ErrNoStatus)
	}
	s, err := readStatus(ctx, r, a, tip)
	if err != nil {
		return nil, err
	}
	out := &Status{Commit: tip, Roll: s.roll, RollSig: s.rollSig}
	for _, f := range s.kept {
		out.Reports = append(out.Reports, f.SignedReport)
	}
	return out, nil
}
