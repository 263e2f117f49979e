// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/policies"
)

// policyDir is where the policies lie in a directory that a person names: in a policy repository below root of its
// muster.yaml, which is what publish takes, and anywhere else in the directory itself.
func policyDir(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, bundles.ProjectFile))
	if errors.Is(err, fs.ErrNotExist) {
		return dir, nil
	}
	if err != nil {
		return "", err
	}
	project, err := bundles.LoadProject(text)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.FromSlash(project.Root)), nil
}

// parsePolicies reads the policies of such a directory and answers where they lie. The positions of problems are
// named from the working directory.
func parsePolicies(dir string) (*policies.Set, string, error) {
	root, err := policyDir(dir)
	if err != nil {
		return nil, "", err
	}
	if _, err := os.Stat(root); err != nil {
		return nil, "", err
	}
	set, err := policies.Parse(os.DirFS(root))
	if problems, ok := errors.AsType[policies.Problems](err); ok {
		placeIn(root, problems)
	}
	return set, root, err
}

// placeIn names the files of problems, which are named from root, from the working directory.
func placeIn(root string, problems policies.Problems) {
	for i := range problems {
		problems[i].File = filepath.Join(root, problems[i].File)
	}
}
