// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"context"
	"errors"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/muster-fleet/muster/fleet"
)

// fetchHosts reads the reports of all host refs.
func (r *round) fetchHosts(ctx context.Context) error {
	ids := make([]string, 0, len(r.refs))
	for id := range r.refs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return r.fetchBatch(ctx, ids)
}

// raceTries is how often a batch is tried with fresh refs before it is halved.
const raceTries = 3

// fetchBatch fetches many refs at once and halves the batch when something is wrong with one of them: a ref
// that moved since it was advertised (git then answers "not our ref" for the whole batch), or a commit beyond
// the limits, which somebody may have made on purpose. So one bad ref costs a few requests, never the fold.
func (r *round) fetchBatch(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	store := memory.NewStorage()
	var err error
	for try := range raceTries {
		if try > 0 {
			if err := r.refresh(ctx, ids); err != nil {
				return err
			}
		}
		if err = r.cfg.Remote.fetch(ctx, r.advert, r.wants(ids), hostLimits(len(ids)), store); Classify(err) != FaultRace {
			break
		}
	}
	switch {
	case err == nil:
		r.take(store, ids)
		return nil
	case !errors.Is(err, ErrLimits) && Classify(err) != FaultRace:
		return err
	case len(ids) > 1:
		half := len(ids) / 2
		return errors.Join(r.fetchBatch(ctx, ids[:half]), r.fetchBatch(ctx, ids[half:]))
	case errors.Is(err, ErrLimits):
		// Too large for a report: an empty one is rejected by name.
		r.got = append(r.got, found{SignedReport: fleet.SignedReport{Ref: ids[0], Report: make([]byte, fleet.MaxReport+1)}})
	default:
		r.result.Skipped++
	}
	return nil
}

// wants are the distinct commits of the hosts.
func (r *round) wants(ids []string) []plumbing.Hash {
	seen := make(map[plumbing.Hash]bool, len(ids))
	var list []plumbing.Hash
	for _, id := range ids {
		if h := r.refs[id]; !h.IsZero() && !seen[h] {
			seen[h] = true
			list = append(list, h)
		}
	}
	return list
}

// refresh asks for the refs again, after a race.
func (r *round) refresh(ctx context.Context, ids []string) error {
	a, err := r.cfg.Remote.list(ctx)
	if err != nil {
		return err
	}
	r.advert = a
	for _, id := range ids {
		r.refs[id] = a.refs[r.cfg.Remote.HostRef(id)]
	}
	return nil
}

// take reads the fetched commits.
func (r *round) take(store *memory.Storage, ids []string) {
	for _, id := range ids {
		if r.refs[id].IsZero() {
			continue // deleted meanwhile
		}
		f, err := readHostCommit(store, r.refs[id], id)
		if err != nil {
			// Not even the form of a report: Fold rejects it under this name.
			f = found{SignedReport: fleet.SignedReport{Ref: id}}
		}
		r.got = append(r.got, f)
	}
}
