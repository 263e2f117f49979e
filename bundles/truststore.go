// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	trustMagic = "muster-trust/1"
	trustLinks = "trust"
	// maxLinks is far above the links that a host keeps.
	maxLinks = 64 << 20
)

// TrustStore keeps the successions that a host has followed since its pinned trust file. Nothing in it is
// believed: each link is verified again from the pinned file on, at every start.
type TrustStore struct{ dir string }

// NewTrustStore answers the store in a state directory.
func NewTrustStore(dir string) *TrustStore { return &TrustStore{dir: dir} }

// Load answers the trust in force: the pinned one, or where the kept links lead from it. An error says that links
// are lost or do not follow; the trust is then the newest that could be reached, and the source brings the rest again.
func (s *TrustStore) Load(pinned *Trust) (*Trust, []Link, error) {
	data, err := readFileBounded(filepath.Join(s.dir, trustLinks), maxLinks)
	if errors.Is(err, fs.ErrNotExist) {
		return pinned, nil, nil
	}
	if err != nil {
		return pinned, nil, asTorn(err, trustLinks)
	}
	payload, err := unframe(trustMagic, data)
	if err != nil {
		return pinned, nil, err
	}
	var kept []Link
	if err := json.Unmarshal(payload, &kept); err != nil {
		return pinned, nil, refuse(ErrTorn, "%s", trustLinks).because(err)
	}
	t := pinned
	var links []Link
	for _, link := range kept {
		if old, err := LoadTrust(link.Trust); err == nil && old.Version <= t.Version {
			continue // the operator installed a newer file
		}
		next, _, err := link.follow(t)
		if err != nil {
			return t, links, err
		}
		t, links = next, append(links, link)
	}
	return t, links, nil
}

// Save keeps the links, oldest first.
func (s *TrustStore) Save(links []Link) error {
	payload, err := json.Marshal(links)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return WriteAtomic(filepath.Join(s.dir, trustLinks), frame(trustMagic, payload), 0o600)
}
