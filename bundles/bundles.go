// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package bundles is releases: reading, verifying, building, signing, publishing and caching them.
//
// Verify is the only maker of a Verified, and nothing is parsed as policy that is not Verified. Transports
// (bundles/git, later bundles/oci) only move bytes; they decide nothing about trust.
package bundles

import (
	"context"
	"io/fs"
	"time"

	"github.com/muster-fleet/muster/policies"
)

// Revision names one state of a source: a Git commit hash or an OCI digest.
type Revision string

// Source is where releases come from.
type Source interface {
	// Latest costs one request when nothing changed since the last call.
	Latest(ctx context.Context) (Revision, error)
	// Fetch brings that revision, within the limits, verified by nobody yet.
	Fetch(ctx context.Context, rev Revision) (*Raw, error)
}

// Raw is a fetched, unverified release.
type Raw struct {
	Revision Revision
	// FS holds regular files only: no symlinks, no "..", within the limits.
	FS fs.FS
	// Rewritten is true when the revision is known not to descend from the one that was accepted last. Where that
	// cannot be known, it is false and AncestryUnknown says why; ErrWire in it says that another try may tell.
	Rewritten       bool
	AncestryUnknown error
	// Earlier are policies that the host has read before, or nil: those of unchanged files are not read again.
	Earlier *policies.Set
}

// Follower is a Source that wants to know which revision was accepted last: what it brings next should descend from
// it. What was only seen does not count: a history that was refused stays refused when somebody builds on it. What is
// kept of that release, which may be nothing, need not be brought again: NewPartFS names it by its digests.
type Follower interface {
	Accepted(rev Revision, kept *Kept)
}

// Level is what a release has enough signers for.
type Level string

// The levels; every LevelEnforce release is good for audit too.
const (
	LevelAudit   Level = "audit"
	LevelEnforce Level = "enforce"
)

// Release is .muster/release.json (RFC 8785 canonical JSON).
type Release struct {
	Schema             string        `json:"schema"`
	Name               string        `json:"name"` // the fleet
	Channel            string        `json:"channel"`
	Epoch              int64         `json:"epoch"`
	Sequence           int64         `json:"sequence"`
	Issued             time.Time     `json:"issued"`
	Source             ReleaseSource `json:"source"`
	Files              []ReleaseFile `json:"files"`
	AcknowledgeRemoval bool          `json:"acknowledgeRemoval,omitempty"`
}

// ReleaseSource is the commit that a release was made from.
type ReleaseSource struct {
	Commit     string `json:"commit"`
	Repository string `json:"repository"`
}

// ReleaseFile is one file of a release; SHA256 is lower-case hex.
type ReleaseFile struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Mark is a high-water mark: the newest release accepted at one level.
type Mark struct {
	Epoch    int64  `json:"epoch"`
	Sequence int64  `json:"sequence"`
	Digest   string `json:"digest"` // sha256:<hex> of release.json
}

// Seen is what a host remembers of what it accepted, one mark for each level, and the clock's floor.
type Seen struct {
	// Of is the fleet and channel that all this is about, as FLEET/CHANNEL.
	Of      string `json:"of,omitempty"`
	Enforce Mark   `json:"enforce"`
	Audit   Mark   `json:"audit"`
	// Trust is the version of the trust file under which the newest of them was accepted.
	Trust int64 `json:"trust,omitempty"`
	// Revision is where the release that was accepted last came from: the next one should descend from it.
	Revision Revision  `json:"revision,omitempty"`
	Floor    time.Time `json:"floor"`
	// Clock is the wall clock when this was written: a clock behind it went backwards.
	Clock time.Time `json:"clock"`
}
