// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"errors"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// historyDepth is how many commits are fetched to find the one from before.
const historyDepth = 1024

type ancestry int

const (
	unknown ancestry = iota
	descends
	rewritten
)

// ancestry says whether commit descends from the revision fetched before. The usual case costs nothing: the
// one before is its parent, or it is the same.
func (s *Source) ancestry(ctx context.Context, commit *object.Commit) ancestry {
	switch {
	case s.last.IsZero():
		return unknown
	case s.last == commit.Hash || slices.Contains(commit.ParentHashes, s.last):
		return descends
	case len(commit.ParentHashes) == 0:
		return rewritten
	}
	deep, err := s.fetch(ctx, commit.Hash, historyDepth)
	if err != nil {
		return unknown
	}
	return deep.walk(commit.Hash, s.last)
}

// walk searches old among the ancestors of tip. A missing parent is the edge of what was fetched.
func (o *objects) walk(tip, old plumbing.Hash) ancestry {
	edge := false
	seen := map[plumbing.Hash]bool{}
	for queue := []plumbing.Hash{tip}; len(queue) > 0; {
		h := queue[0]
		queue = queue[1:]
		if h == old {
			return descends
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
			return unknown
		}
		queue = append(queue, c.ParentHashes...)
	}
	if edge {
		return unknown
	}
	return rewritten
}
