// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// ErrHostID is the kind of error for an id that cannot name a host.
var ErrHostID = errors.New("host id")

// maxHostID is REPORTS' limit; a Linux hostname is no longer either.
const maxHostID = 63

// hostIDPattern narrows REPORTS' [a-z0-9.-]{1,63} to what is safe everywhere an id is used: a component of
// a Git ref, a file name, a principal of allowed_signers. Every label begins and ends with a letter or digit,
// so "..", a leading "-" and hidden files cannot occur.
var hostIDPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// CheckHostID answers nil when id can name a host.
func CheckHostID(id string) error {
	switch {
	case len(id) == 0 || len(id) > maxHostID:
		return fmt.Errorf("%w: %d characters, allowed are 1 to %d", ErrHostID, len(id), maxHostID)
	case !hostIDPattern.MatchString(id):
		return fmt.Errorf("%w: %q: allowed are labels of a-z, 0-9 and \"-\", joined by \".\"", ErrHostID, clip(id, maxHostID))
	case strings.HasSuffix(id, ".lock"):
		// Git refuses a ref that ends so.
		return fmt.Errorf("%w: %q ends in .lock", ErrHostID, id)
	}
	return nil
}

// HostID derives an id from a hostname: lower case, everything that an id cannot hold becomes "-".
func HostID(hostname string) (string, error) {
	var b strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(hostname)) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			b.WriteRune(r)
			continue
		}
		b.WriteByte('-')
	}
	id := clip(strings.Trim(b.String(), "-."), maxHostID)
	id = strings.Trim(id, "-.")
	if err := CheckHostID(id); err != nil {
		return "", fmt.Errorf("hostname %q: %w", clip(hostname, maxHostID), err)
	}
	return id, nil
}

// Shard is the two hex digits under which a host's ref and files lie, so that no directory grows too wide.
func Shard(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:1])
}

// NextSlot is the first moment after "after" that belongs to this host: every period has one slot for each
// host, at an offset given by the hash of its id, so a restart keeps the phase and a fleet never speaks at once.
func NextSlot(id string, every time.Duration, after time.Time) time.Time {
	if every <= 0 {
		return after
	}
	sum := sha256.Sum256([]byte("slot\x00" + id))
	offset := time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(every))
	slot := after.Truncate(every).Add(offset)
	for !slot.After(after) {
		slot = slot.Add(every)
	}
	return slot
}

// clip shortens s to at most n bytes, for error messages and bounded fields; it never splits a rune.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
