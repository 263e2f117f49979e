// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/reconciler/control"
)

// The kinds of error of this package.
var (
	// ErrRemoval refuses a release that removes most of a host's rules without saying that it means to.
	ErrRemoval = errors.New("the release removes more than half of this host's rules and does not acknowledge it")
	// ErrPolicy refuses a release whose policies do not parse.
	ErrPolicy = errors.New("the release holds policies with errors")
	// ErrStopping answers a question that came while the agent was stopping.
	ErrStopping = errors.New("the agent is stopping")
)

// WaitingError will be tried again without anybody's help.
type WaitingError struct {
	Err  error
	Next time.Time
}

func (e *WaitingError) Error() string {
	return fmt.Sprintf("%v (tried again at %s)", e.Err, e.Next.UTC().Format(time.RFC3339))
}

// Unwrap returns what happened.
func (e *WaitingError) Unwrap() error { return e.Err }

// StalledError needs a person; it is still tried again, since the person may have come.
type StalledError struct{ Err error }

func (e *StalledError) Error() string { return e.Err.Error() }

// Unwrap returns what happened.
func (e *StalledError) Unwrap() error { return e.Err }

// classify tells waiting from stalled: what no amount of waiting changes is stalled.
func classify(err error, failures int, next time.Time) error {
	var stalled interface{ Stalled() bool }
	switch {
	case errors.As(err, &stalled) && stalled.Stalled(),
		errors.Is(err, bundles.ErrUnsupported),
		errors.Is(err, fs.ErrPermission),
		failures >= stalledAfter:
		return &StalledError{Err: err}
	}
	return &WaitingError{Err: err, Next: next}
}

// stalledAfter is how many failures in a row of the same thing make it a person's business.
const stalledAfter = 8

// RefusalName is the stable name under which a host reports that it refused a release; "" for what is no refusal.
func RefusalName(err error) string { return name(err, "") }

// name returns the stable name inside err, or fallback.
func name(err error, fallback string) string {
	if refusal := bundles.RefusalName(err); refusal != "" {
		return refusal
	}
	switch {
	case errors.Is(err, ErrRemoval):
		return "removal-not-acknowledged"
	case errors.Is(err, ErrPolicy):
		return "policy"
	case errors.Is(err, ErrNameTaken):
		return "name-taken"
	}
	var named interface{ Name() string }
	if errors.As(err, &named) {
		return named.Name()
	}
	return fallback
}

func hint(err error) string {
	var hinter interface{ Hint() string }
	if errors.As(err, &hinter) {
		return hinter.Hint()
	}
	if errors.Is(err, ErrRemoval) {
		return "muster publish --acknowledge-removal, if it is meant"
	}
	return ""
}

// problem puts err into the words of the control socket.
func problem(err error, fallback string, since time.Time) control.Problem {
	return control.Problem{Name: name(err, fallback), Message: err.Error(), Hint: hint(err), Since: since}
}
