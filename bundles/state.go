// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	stateMagic = "muster-seen/1"
	stateFile  = "seen"
	stateOld   = "seen.old"
	maxState   = 64 << 10
)

// StateFile keeps Seen on disk, in a directory that it shares with the cache. The generation before the
// last is kept beside it: when the newer file is damaged, its marks are still a floor.
type StateFile struct{ dir string }

// NewStateFile answers the state file of a directory.
func NewStateFile(dir string) *StateFile { return &StateFile{dir: dir} }

// Load answers what was saved. ErrMissingState means that nothing ever was; ErrTorn that the state is lost,
// and then Seen holds the older generation's marks, or zero: report StateLost and take RecoverSeen's floor.
func (s *StateFile) Load() (Seen, error) {
	seen, err := s.read(stateFile)
	if err == nil {
		return seen, nil
	}
	older, olderErr := s.read(stateOld)
	if olderErr != nil {
		older = Seen{}
	}
	if errors.Is(err, fs.ErrNotExist) {
		if errors.Is(olderErr, fs.ErrNotExist) {
			return Seen{}, refuse(ErrMissingState, "%s does not exist", filepath.Join(s.dir, stateFile))
		}
		err = refuse(ErrTorn, "%s is gone", stateFile)
	}
	return older, asTorn(err, stateFile)
}

func asTorn(err error, what string) error {
	if errors.Is(err, ErrTorn) {
		return err
	}
	return refuse(ErrTorn, "%s", what).because(err)
}

func (s *StateFile) read(name string) (Seen, error) {
	var seen Seen
	data, err := readFileBounded(filepath.Join(s.dir, name), maxState)
	if err != nil {
		return seen, err
	}
	payload, err := unframe(stateMagic, data)
	if err != nil {
		return seen, err
	}
	if err := decodeCanonical(name, payload, &seen); err != nil {
		return Seen{}, refuse(ErrTorn, "%s", name).because(err)
	}
	return seen, nil
}

// Save writes the state, and keeps the generation before. Saving what is there already writes nothing.
func (s *StateFile) Save(seen Seen) error {
	seen.Floor, seen.Clock = seen.Floor.UTC(), seen.Clock.UTC()
	payload, err := canonical(seen)
	if err != nil {
		return err
	}
	data := frame(stateMagic, payload)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(s.dir, stateFile)
	if old, err := readFileBounded(path, maxState); err == nil {
		if string(old) == string(data) {
			return nil
		}
		// Only a good generation is worth keeping: a torn file must not push out the older marks.
		if _, err := unframe(stateMagic, old); err == nil {
			if err := WriteAtomic(filepath.Join(s.dir, stateOld), old, 0o600); err != nil {
				return err
			}
		}
	}
	return WriteAtomic(path, data, 0o600)
}
