// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/muster-fleet/muster/fleet"
)

// TestKeptOverBoot: what the kernel asks to have kept is on disk when it changes, and given back at the next start.
func TestKeptOverBoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := filepath.Join(w.cfg.StateDir, "kept")
	lost := func() bool {
		return slices.ContainsFunc(w.status().Report.Conditions, func(c fleet.Condition) bool { return c.Type == "StateLost" })
	}
	w.publish(blocking("one", "/etc/a"), []string{"alice"}, 1, false)
	w.start()
	w.sync()
	w.halt()
	if _, err := os.Stat(path); err == nil {
		t.Fatal("a file for nothing")
	}
	w.kernel.kept = `[{"inode":1}]`
	w.start()
	w.status()
	w.halt()
	w.must(w.kernel.tamper("reboot"))
	w.start()
	if w.status(); w.kernel.restored != `[{"inode":1}]` || lost() {
		t.Errorf("restored %q", w.kernel.restored)
	}
	w.halt()
	written, err := os.Stat(path)
	w.must(err)

	w.start()
	w.sync()
	w.halt()
	if again, err := os.Stat(path); err != nil || !again.ModTime().Equal(written.ModTime()) {
		t.Errorf("written again without a change: %v", err)
	}
	w.kernel.kept = ""
	w.start()
	w.status()
	w.halt()
	w.kernel.restored = ""
	w.start()
	if w.status(); w.kernel.restored != "" || lost() {
		t.Errorf("restored %q of nothing", w.kernel.restored)
	}
	w.halt()

	w.must(os.WriteFile(path, []byte("muster-kept/1 torn"), 0o600))
	w.start()
	if !lost() {
		t.Error("nobody is told that the file is torn")
	}
}
