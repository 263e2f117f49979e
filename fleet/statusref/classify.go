// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// Fault is what a failed fetch or push means for the next step.
type Fault int

// The faults.
const (
	// FaultNone: it worked, or there was nothing to do.
	FaultNone Fault = iota
	// FaultRace: somebody else was faster; look again and redo.
	FaultRace
	// FaultRefused: the server will go on saying no; a person has to look.
	FaultRefused
	// FaultUnreachable: everything else; later may be better.
	FaultUnreachable
)

// String names the fault.
func (f Fault) String() string {
	switch f {
	case FaultNone:
		return "none"
	case FaultRace:
		return "race"
	case FaultRefused:
		return "refused"
	}
	return "unreachable"
}

// refusals are texts of servers and forges, lower case, that no retry changes.
var refusals = []string{
	"protected branch", "gh006", "gh013", "hook declined", "deny updating a hidden ref", "deletion prohibited",
	"exists; cannot create", "repository rule violations", "prohibited by gerrit", "funny refname",
	"non-fast-forward\n", // receive.denyNonFastForwards; go-git's own text goes on with " update"
	"denying non-fast-forward", "invalid auth method", "not allowed to push", "read-only", "read only",
	"permission to", "unable to authenticate", "handshake failed: knownhosts", "host key mismatch",
}

// races are the faces of a lost race, lower case: go-git's (a shallow clone cannot walk to the new tip and
// says "object not found"; its lease says "remote ref … required to be …"), and the report-status texts of git,
// and what upload-pack says of a ref that moved since it was advertised.
var races = []string{
	"non-fast-forward update", "object not found", "required to be", "failed to update ref", "cannot lock ref",
	"fetch first", "incorrect old value", "reference already exists", "stale info", "not our ref",
	"failed to lock", "is at ", "unable to resolve reference",
}

// Classify sorts an error of a fetch or push. go-git v5 has no error values for most of them, so texts decide;
// the table is tested against a real git http-backend.
func Classify(err error) Fault {
	switch {
	case err == nil, errors.Is(err, git.NoErrAlreadyUpToDate):
		return FaultNone
	case errors.Is(err, plumbing.ErrObjectNotFound), errors.Is(err, git.ErrNonFastForwardUpdate):
		return FaultRace
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed),
		errors.Is(err, transport.ErrRepositoryNotFound), errors.Is(err, transport.ErrInvalidAuthMethod):
		return FaultRefused
	}
	text := strings.ToLower(err.Error()) + "\n"
	for _, t := range refusals {
		if strings.Contains(text, t) {
			return FaultRefused
		}
	}
	for _, t := range races {
		if strings.Contains(text, t) {
			return FaultRace
		}
	}
	return FaultUnreachable
}

// Error is a fetch or push that failed, with what it means.
type Error struct {
	Fault Fault
	Op    string
	Err   error
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

// Unwrap answers the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint says what a person can do.
func (e *Error) Hint() string {
	switch {
	case e.Fault == FaultRefused && errors.Is(e.Err, transport.ErrRepositoryNotFound):
		return "check the URL of the status repository; a private one that this credential may not read looks the same"
	case e.Fault == FaultRefused:
		return "the credential must be allowed to push to the status repository; where the forge refuses refs outside refs/heads, use the prefix " + PrefixHeads
	case e.Fault == FaultUnreachable:
		return "the report stays on disk and is sent when the repository answers again"
	}
	return ""
}

func fault(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Fault: Classify(err), Op: op, Err: err}
}
