// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// TestLongTrust: a trust file that is too long is refused; cut, it would have lost what stands at its end.
func TestLongTrust(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	path := filepath.Join(t.TempDir(), "trust.yaml")
	for filler, want := range map[int]error{10: nil, maxTrust: bundles.ErrTrust, 3 * maxTrust: bundles.ErrTrust} {
		text := f.TrustYAML(t, 1, 1, strings.Repeat("#\n", filler/2)+"revoked: {keys: ["+f.Keys["alice"].ID()+"]}\n")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		trust, err := readTrust(path)
		if !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, wanted %v", len(text), err, want)
		}
		if err == nil && len(trust.Revoked.Keys) != 1 {
			t.Errorf("%d bytes: the revocation is lost", len(text))
		}
	}
}
