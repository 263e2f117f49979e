// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package hostile

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/muster-fleet/muster/test/vm"
)

var update = flag.Bool("update", false, "write docs/bad-input.md from what was measured in the lab")

const page = "../../docs/bad-input.md"

// TestInVM runs the table over a kernel that enforces. It takes minutes of one machine, and so is asked for by tag.
func TestInVM(t *testing.T) {
	t.Parallel()
	vm.Need(t)
	share := t.TempDir()
	vm.RunTests(t, vm.Options{LSM: vm.BPF, Kernel: "6.12", Share: share, TestLimit: 40 * time.Minute, Files: map[string]string{build(t): agentInLab}}, ".", "-test.run=^TestTable$")
	if !*update || t.Failed() {
		return
	}
	text, err := os.ReadFile(filepath.Join(share, filepath.Base(pageInLab)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
