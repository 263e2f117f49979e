// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/fleet"
)

// spool is the newest signed report, on disk before it is sent, and the commit under which it arrived. Reports
// that were not sent are not queued: the newest says all, so the spool is one file of bounded size.
type spool struct {
	Report    string `json:"report"`
	Signature string `json:"signature"`
	// Waiting is true until the remote has taken the report.
	Waiting bool `json:"waiting"`
	// Remote is the commit that the remote took last.
	Remote string `json:"remote"`
}

// maxSpool bounds what is read back: a report escaped as a JSON string, its signature, and room.
const maxSpool = 8 * fleet.MaxReport

const spoolName = "last.json"

// loadSpool answers the zero spool when there is none, and lost=true when there is one that cannot be read.
func loadSpool(dir string) (s spool, lost bool, err error) {
	path := filepath.Join(dir, spoolName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return spool{}, false, nil
	}
	if err != nil {
		return spool{}, false, fmt.Errorf("report spool: %w", err)
	}
	if info.Size() > maxSpool {
		return spool{}, true, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return spool{}, false, fmt.Errorf("report spool: %w", err)
	}
	if json.Unmarshal(b, &s) != nil {
		return spool{}, true, nil
	}
	if _, err := fleet.Decode([]byte(s.Report)); err != nil {
		return spool{}, true, nil
	}
	return s, false, nil
}

// save writes the spool durably, before the push: a sequence that was used and forgotten comes again with other content,
// unless the remote is asked first.
func (s spool) save(dir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("report spool: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("report spool: %w", err)
	}
	if err := bundles.WriteAtomic(filepath.Join(dir, spoolName), b, 0o600); err != nil {
		return fmt.Errorf("report spool: %w", err)
	}
	return nil
}
