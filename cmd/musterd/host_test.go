// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/inventory/host"
	"github.com/muster-fleet/muster/reconciler/config"
)

// TestConfiguredLabels: the configured file alone gives labels, and each time it is read nobody else may have been able
// to write it.
func TestConfiguredLabels(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "labels.yaml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := &hostFacts{log: slog.New(slog.DiscardHandler), store: inventory.NewStore(), root: fstest.MapFS{
		host.LabelsFile:               {Data: []byte("role: built-in\nonly: built-in\n")},
		strings.TrimPrefix(path, "/"): {Data: []byte("role: other\n")},
	}}
	for _, tc := range []struct{ labels, role string }{{path, "other"}, {filepath.Dir(path) + "/./labels.yaml", "other"}, {"", ""}} {
		if err := h.refresh(&config.Config{Labels: tc.labels}); err != nil {
			t.Fatal(err)
		}
		if node, _ := h.Node(); node.Labels["role"] != tc.role || node.Labels["only"] != "" {
			t.Errorf("labels: %q: %v", tc.labels, node.Labels)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := h.refresh(&config.Config{Labels: path}); !errors.Is(err, errUnsafeFile) {
		t.Errorf("a file that everybody may write: %v", err)
	}
	if node, _ := h.Node(); node.Labels["role"] != "" {
		t.Errorf("it was read: %v", node.Labels)
	}
}
