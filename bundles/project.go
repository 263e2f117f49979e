// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"path"
	"strings"
)

// ProjectFile is the name of the project file at the top of a policy repository.
const ProjectFile = "muster.yaml"

// Project is muster.yaml: what of this repository is published, and where to.
type Project struct {
	// Root is the directory whose files are the release.
	Root string `yaml:"root"`
	// Trust is the trust file: it names fleet and channel, and is published for muster join.
	Trust string `yaml:"trust"`
	// Remote is the name of a Git remote, or a URL, that has the channel branches.
	Remote string `yaml:"remote"`
	// Repository is recorded in each release as where its source is.
	Repository string `yaml:"repository"`
}

// LoadProject parses muster.yaml.
func LoadProject(data []byte) (*Project, error) {
	p := Project{Root: "policies", Trust: "trust.yaml", Remote: "origin"}
	if err := strictYAML(ProjectFile, data, &p); err != nil {
		return nil, refuse(ErrMalformed, "%s", ProjectFile).because(err)
	}
	for what, v := range map[string]string{"root": p.Root, "trust": p.Trust} {
		if v == "" || path.IsAbs(v) || path.Clean(v) != v || v == ".." || strings.HasPrefix(v, "../") {
			return nil, refuse(ErrMalformed, "%s: %s %q is not a clean path inside the repository", ProjectFile, what, v)
		}
	}
	if p.Remote == "" {
		return nil, refuse(ErrMalformed, "%s: remote is empty", ProjectFile)
	}
	return &p, nil
}
