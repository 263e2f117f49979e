// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrInvalid is the kind of every Problems error: what was written is not a policy.
var ErrInvalid = errors.New("invalid policy")

// maxProblems bounds what one file may report: a hostile document must not grow without end in memory.
const maxProblems = 1000

// Problem is one thing wrong at one place.
type Problem struct {
	Position
	Message string `json:"message"`
	// Hint says what to write instead; every problem and warning of this package has one.
	Hint string `json:"hint,omitempty"`
}

// String is "file:line:column: message".
func (p Problem) String() string { return p.Position.String() + ": " + p.Message }

// String is "file:line:column".
func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Problems is every problem found, by file, line and column. It is never empty when returned as an error.
type Problems []Problem //nolint:errname // a list that lint prints; only sometimes an error

// Error implements error, one problem a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (p Problems) Unwrap() error { return ErrInvalid }

// Hint is the first problem's hint.
func (p Problems) Hint() string {
	for _, problem := range p {
		if problem.Hint != "" {
			return problem.Hint
		}
	}
	return ""
}

// orNil sorts the problems and makes no problem no error.
func (p Problems) orNil() error {
	if len(p) == 0 {
		return nil
	}
	p.sort()
	return p
}

func (p Problems) sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
