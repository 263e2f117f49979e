// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// verdict is a test that writes down how it was ended.
type verdict struct {
	testing.TB
	failed, skipped error
}

func (v *verdict) Fatal(args ...any) { v.failed, _ = args[0].(error) }
func (v *verdict) Skip(args ...any)  { v.skipped, _ = args[0].(error) }

// TestNeed: where the lab cannot run, a test that needs it fails under CI and is left out elsewhere, and either says why.
func TestNeed(t *testing.T) {
	path := t.TempDir()
	t.Setenv("PATH", path)
	for _, ci := range []string{"true", ""} {
		t.Setenv("CI", ci)
		v := &verdict{TB: t}
		Need(v)
		ended, other := v.skipped, v.failed
		if ci != "" {
			ended, other = v.failed, v.skipped
		}
		if !errors.Is(ended, ErrUnavailable) || other != nil {
			t.Errorf("CI=%s: failed %v, skipped %v", ci, v.failed, v.skipped)
		}
	}
	if os.Getuid() != 0 {
		return // the rest of it takes root to be available at all
	}
	for _, program := range programs {
		if err := os.WriteFile(filepath.Join(path, program), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CI", "true")
	v := &verdict{TB: t}
	if Need(v); v.failed != nil || v.skipped != nil {
		t.Errorf("everything is there: failed %v, skipped %v", v.failed, v.skipped)
	}
}
