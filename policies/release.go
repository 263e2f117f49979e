// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// IsPolicyFile says whether a file of a release, named from its root, holds policies: every *.yaml and
// *.yml but muster.yaml, rollout.yaml, waivers/ and .muster/. See Unsupported for the two in the middle.
func IsPolicyFile(name string) bool {
	if ext := path.Ext(name); ext != ".yaml" && ext != ".yml" {
		return false
	}
	switch top, _, below := strings.Cut(name, "/"); {
	case below:
		return top != waiversFolder && top != ".muster" && top != ".git"
	default:
		return name != "muster.yaml" && name != rolloutFile
	}
}

// Parse parses every policy file of a release. The error is Problems when the policies are at fault: then
// it holds every problem of every file, and nothing of the release is to be used.
func Parse(fsys fs.FS) (*Set, error) { return ParseAfter(nil, fsys) }

// MaxRules is the most that the rules of one release may be, each counted once and once more for each of its
// sources: about a gigabyte and twenty seconds of a host that compiles them.
const MaxRules = 100_000

// Digested is a file system that knows what its files hold: digests that its maker compared with every byte.
type Digested interface {
	SHA256(name string) (sum [sha256.Size]byte, ok bool)
}

// ParseAfter is Parse with the policies of unchanged files taken from an earlier Set, which may be nil:
// the cost follows the change. Where the file system is Digested, such files are not read.
func ParseAfter(earlier *Set, fsys fs.FS) (*Set, error) {
	files := make(map[string]parsedFile, earlier.size())
	list := make([]*Policy, 0, earlier.size())
	var problems Problems
	rules := 0
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name == ".git" || name == ".muster" || name == waiversFolder {
				return fs.SkipDir
			}
			return nil
		}
		if !IsPolicyFile(name) {
			return nil
		}
		if !entry.Type().IsRegular() {
			problems = append(problems, Problem{
				Position: Position{File: name, Line: 1, Column: 1}, Message: "not a regular file", Hint: "a release holds no symlinks",
			})
			return nil
		}
		file, found, err := parseAfter(earlier, fsys, name)
		if err != nil {
			return err
		}
		problems = append(problems, found...)
		files[name] = file
		list = append(list, file.policies...)
		rules += file.weight()
		if rules > MaxRules || len(problems) >= maxProblems {
			problems = append(problems, tooMuch(name, rules))
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	problems = append(problems, duplicates(list)...)
	if err := problems.orNil(); err != nil {
		return nil, err
	}
	set := NewSet(list)
	set.files = files
	return set, nil
}

// weight is what a file's policies count towards MaxRules.
func (f parsedFile) weight() int {
	n := 0
	for _, p := range f.policies {
		for i := range p.Rules {
			n += 1 + len(p.Rules[i].Sources)
		}
	}
	return n
}

// tooMuch ends the reading of a release: what is looked at must fit into every host's memory and time.
func tooMuch(name string, rules int) Problem {
	p := Problem{Position: Position{File: name, Line: 1, Column: 1}, Message: "too many problems: the files after this one are not looked at", Hint: "correct the ones above first"}
	if rules > MaxRules {
		p.Message = fmt.Sprintf("with this file the release has %d rules and sources; the limit is %d", rules, MaxRules)
		p.Hint = "name directories or patterns instead of single files"
	}
	return p
}

// parsedFile is what a file held, and the digest it had then.
type parsedFile struct {
	sum      [sha256.Size]byte
	policies []*Policy
}

func parseAfter(earlier *Set, fsys fs.FS, name string) (parsedFile, Problems, error) {
	if digested, ok := fsys.(Digested); ok {
		if sum, ok := digested.SHA256(name); ok {
			if known, ok := earlier.unchanged(name, sum); ok {
				return known, nil, nil
			}
		}
	}
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return parsedFile{}, nil, err
	}
	file := parsedFile{sum: sha256.Sum256(data)}
	if known, ok := earlier.unchanged(name, file.sum); ok {
		return known, nil, nil
	}
	var problems Problems
	file.policies, problems = parseFile(name, data)
	return file, problems, nil
}

// size is about how many files and policies the next Set has.
func (s *Set) size() int {
	if s == nil {
		return 0
	}
	return len(s.files)
}

// unchanged answers what a file held when it had this digest; a nil Set knows none.
func (s *Set) unchanged(name string, sum [sha256.Size]byte) (parsedFile, bool) {
	if s == nil {
		return parsedFile{}, false
	}
	known, ok := s.files[name]
	return known, ok && known.sum == sum
}

// duplicates reports every policy whose kind, namespace and name an earlier one of the list has.
func duplicates(list []*Policy) Problems {
	first := make(map[ID]*Policy, len(list))
	var problems Problems
	for _, p := range list {
		id := p.ID
		if id.Kind == KindContainer && id.Namespace == "" {
			id.Namespace = defaultNamespace
		}
		other := first[id]
		if other == nil {
			first[id] = p
			continue
		}
		problems = append(problems, Problem{
			Position: p.Position,
			Message:  fmt.Sprintf("duplicate policy %s, first at %s", p.ID, other.Position),
			Hint:     "kind, namespace and name must be unique in a release",
		})
	}
	return problems
}

// String is "Kind namespace/name", or "Kind name".
func (id ID) String() string {
	if id.Namespace == "" {
		return string(id.Kind) + " " + id.Name
	}
	return string(id.Kind) + " " + id.Namespace + "/" + id.Name
}
