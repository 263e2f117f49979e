// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/muster-fleet/muster/reconciler/internal/statefile"
)

// BootMemory is a backend whose kernel side knows what a boot makes it forget.
type BootMemory interface {
	// Keep answers what has to outlive a boot, as JSON, nil for nothing. Known is false while it cannot be said.
	Keep() (value []byte, known bool, err error)
	// Restore takes back what Keep answered, before the first step.
	Restore(value []byte) error
}

const keptMagic = "muster-kept/1"

func (l *Loop) keptPath() string { return filepath.Join(l.deps.StateDir, "kept") }

// restoreKept gives the backend what it had before the boot, if it was one.
func (l *Loop) restoreKept(now time.Time) {
	memory, ok := l.deps.Backend.(BootMemory)
	if !ok {
		return
	}
	var kept json.RawMessage
	err := statefile.Load(l.keptPath(), keptMagic, &kept)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if string(kept) == "null" {
		return // nothing had to be kept any more
	}
	if err == nil {
		err = memory.Restore(kept)
	}
	if err != nil {
		l.deps.Log.Warn("what was kept for the next boot is not readable", "error", err)
		l.know.mark("StateLost", "files that a protected name led to before the boot are not known any more", now)
		return
	}
	l.know.kept = kept
}

// keep writes down what has to outlive a boot when it is another thing than before.
func (l *Loop) keep() {
	memory, ok := l.deps.Backend.(BootMemory)
	if !ok {
		return
	}
	kept, known, err := memory.Keep()
	if err == nil && known && !bytes.Equal(kept, l.know.kept) {
		if err = statefile.Save(l.keptPath(), keptMagic, json.RawMessage(kept)); err == nil {
			l.know.kept = kept
		}
	}
	if err != nil {
		l.deps.Log.Error("not kept for the next boot", "error", err)
	}
}
