// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"errors"
	"io/fs"
	"strings"
)

// The parts of a release that say when and for whom its policies hold. This version acts on neither.
const (
	rolloutFile   = "rollout.yaml"
	waiversFolder = "waivers"
)

// Unsupported is what is wrong with a file of a release, named from its root, that asks for what this version does not
// do; nil for every other file. Left unread, rollout.yaml would let a release that asks for waves out to every host at
// once, and a waiver would be denied what somebody has granted.
func Unsupported(name string) *Problem {
	p := &Problem{Position: Position{File: name, Line: 1, Column: 1}}
	switch top, _, below := strings.Cut(name, "/"); {
	case name == rolloutFile:
		p.Message = "this version knows no waves, and every host would take the release at once"
		p.Hint = "remove " + rolloutFile + "; publish to a channel of its own what a few hosts shall have first"
	case below && top == waiversFolder:
		p.Message = "this version knows no waivers, and would go on denying what this one permits"
		p.Hint = "remove " + waiversFolder + "/; write the exception into the policy, as an Allow rule or in its nodeSelector"
	default:
		return nil
	}
	return p
}

// UnsupportedIn finds every such file of what is going to be a release.
func UnsupportedIn(fsys fs.FS) (Problems, error) {
	var problems Problems
	for _, root := range []string{rolloutFile, waiversFolder} {
		err := fs.WalkDir(fsys, root, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			if p := Unsupported(name); p != nil {
				p.Message = "unsupported: " + p.Message // the name by which hosts refuse it
				problems = append(problems, *p)
			}
			if len(problems) >= maxProblems {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return problems, nil
}
