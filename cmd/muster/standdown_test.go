// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
)

// muster runs one verb and answers what it printed.
func muster(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), args, &out, &errs); code != want {
		t.Fatalf("muster %s: exit code %d\n%s%s", strings.Join(args, " "), code, out.String(), errs.String())
	}
	return out.String() + errs.String()
}

// TestStandDownSign has two signers sign one statement, each by themselves.
func TestStandDownSign(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("MUSTER_PASSWORD", "")
	t.Setenv("MUSTER_KEY", "")
	t.Setenv("MUSTER_KEYS", filepath.Join(dir, "none"))
	trust := filepath.Join(dir, "trust.yaml")
	var text strings.Builder
	text.WriteString("fleet: test\nchannel: stable\nversion: 1\nepoch: 1\nthreshold: {audit: 1, enforce: 1, trust: 2}\nsigners:\n")
	for _, name := range []string{"alice", "bob"} {
		muster(t, 0, "keys", "new", name, "--dir", dir, "--trust", "")
		pub, err := os.ReadFile(filepath.Join(dir, name+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString("  - name: " + name + "\n    key: |\n      " + strings.ReplaceAll(strings.TrimSpace(string(pub)), "\n", "\n      ") + "\n")
	}
	if err := os.WriteFile(trust, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "upgrade.json")
	sign := func(want int, key string, more ...string) string {
		return muster(t, want, append([]string{"stand-down", "sign", file, "--trust", trust, "--key", filepath.Join(dir, key+".key")}, more...)...)
	}
	if out := sign(1, "alice"); !strings.Contains(out, "--host") {
		t.Error(out)
	}
	if out := sign(1, "alice", "--host", "web-1", "--reason", "upgrade", "--for", "169h"); !strings.Contains(out, "168h") {
		t.Error(out)
	}
	if out := sign(0, "alice", "--host", "web-1", "--reason", "upgrade", "--for", "1h"); !strings.Contains(out, "1 of 2 needed: alice") {
		t.Error(out)
	}
	if out := sign(1, "bob", "--host", "web-2"); !strings.Contains(out, "would change what its signers signed") {
		t.Error(out)
	}
	if out := sign(1, "bob"); !strings.Contains(out, "web-1") || !strings.Contains(out, "--yes") { // nobody is there to say yes
		t.Error(out)
	}
	foreign := filepath.Join(dir, "foreign.yaml")
	if err := os.WriteFile(foreign, []byte(strings.Replace(text.String(), "fleet: test", "fleet: other", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := sign(1, "bob", "--yes", "--trust", foreign); !strings.Contains(out, "for fleet test, the trust is of other") {
		t.Error(out)
	}
	if out := sign(0, "bob", "--yes"); !strings.Contains(out, "2 of 2 needed: alice, bob") || !strings.Contains(out, "web-1") {
		t.Error(out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := bundles.ReadStandDown(data)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := bundles.LoadTrust([]byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	if _, signers, err := s.Verify(loaded, "web-1", time.Now(), func(string) bool { return false }); err != nil || len(signers) != 2 {
		t.Errorf("%q %v", signers, err)
	}
}
