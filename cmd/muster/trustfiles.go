// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
)

// trustProject is a policy repository's working tree, as far as its trust file goes.
type trustProject struct {
	*bundles.Project
	url string
}

func openTrustProject(dir, remote string) (*trustProject, error) {
	text, err := os.ReadFile(filepath.Join(dir, bundles.ProjectFile))
	if err != nil {
		return nil, hinted("run this at the top of a policy repository", "%w", err)
	}
	p := &trustProject{}
	if p.Project, err = bundles.LoadProject(text); err != nil {
		return nil, err
	}
	repo, err := git.OpenRepository(dir)
	if err != nil {
		return nil, err
	}
	p.url, err = repo.RemoteURL(cmp.Or(remote, p.Remote))
	return p, err
}

// signaturesDir is where the bundles over one version of the trust file lie in a policy repository.
func signaturesDir(trust string, version int64) string {
	return strings.TrimSuffix(trust, filepath.Ext(trust)) + ".signatures/" + strconv.FormatInt(version, 10)
}

// readSignatureFiles reads the bundles of a directory, which need not exist.
func readSignatureFiles(dir string, into map[string][]byte) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if into[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func readRawFile(raw *bundles.Raw, name string) ([]byte, error) { return fs.ReadFile(raw.FS, name) }
