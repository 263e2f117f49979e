// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/muster-fleet/muster/bundles"
)

// historyDepth is how many commits are fetched to find the one from before.
const historyDepth = 1024

// ancestry says whether commit is known not to descend from the revision that was accepted last, or why that cannot
// be known. The usual cases cost nothing: there is none before, it is the commit's parent, or it is the same.
func (s *Source) ancestry(ctx context.Context, commit *object.Commit) (rewritten bool, unknown error) {
	s.mu.Lock()
	accepted := string(s.accepted)
	s.mu.Unlock()
	if accepted == "" {
		return false, nil
	}
	if !plumbing.IsHash(accepted) {
		return false, fmt.Errorf("the release before came from elsewhere (%s)", accepted)
	}
	old := plumbing.NewHash(accepted)
	switch {
	case old == commit.Hash || slices.Contains(commit.ParentHashes, old):
		return false, nil
	case len(commit.ParentHashes) == 0:
		return true, nil
	}
	deep, err := s.fetch(ctx, commit.Hash, historyDepth, nil)
	if err == nil {
		return deep.rewritten(commit.Hash, old)
	}
	if bundles.RefusalName(err) == "" {
		err = fmt.Errorf("%w: %w", bundles.ErrWire, err)
	}
	return false, fmt.Errorf("its history cannot be fetched: %w", err)
}

var errEdge = fmt.Errorf("the accepted revision is not among the last %d commits", historyDepth)

// rewritten searches old among the ancestors of tip. A missing parent is the edge of what was fetched.
func (o *objects) rewritten(tip, old plumbing.Hash) (bool, error) {
	edge := false
	seen := map[plumbing.Hash]bool{}
	for queue := []plumbing.Hash{tip}; len(queue) > 0; {
		h := queue[0]
		queue = queue[1:]
		if h == old {
			return false, nil
		}
		if seen[h] {
			continue
		}
		seen[h] = true
		c, err := o.commit(h)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			edge = true
			continue
		}
		if err != nil {
			return false, err
		}
		queue = append(queue, c.ParentHashes...)
	}
	if edge {
		return false, errEdge
	}
	return true, nil
}
