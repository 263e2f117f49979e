// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package statefile keeps one JSON value in one file that is either whole or known to be torn: a header line
// with a magic word, the payload's length and its sha256, written aside, synced and renamed.
package statefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/muster-fleet/muster/bundles"
)

// ErrTorn says that the file is truncated, damaged, or not this kind of file.
var ErrTorn = errors.New("state file is torn")

// maxSize is far above any state and bounds what a damaged file can cost.
const maxSize = 8 << 20

// Save replaces the file's value.
func Save(path, magic string, value any) error {
	payload, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	if err := bundles.WriteAtomic(path, append([]byte(header(magic, payload)), payload...), 0o600); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	return nil
}

// Load reads the file's value; errors.Is(err, fs.ErrNotExist) when there never was one.
func Load(path, magic string, value any) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	head, payload, found := bytes.Cut(content, []byte("\n"))
	if !found || string(head)+"\n" != header(magic, payload) {
		return fmt.Errorf("%w: %s", ErrTorn, path)
	}
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrTorn, path, err)
	}
	return nil
}

func header(magic string, payload []byte) string {
	sum := sha256.Sum256(payload)
	return fmt.Sprintf("%s %d %s\n", magic, len(payload), hex.EncodeToString(sum[:]))
}
