// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package scaffold_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/scaffold"
	"github.com/muster-fleet/muster/policies"
)

// TestWrite: what init writes parses, publishes and is never written over.
func TestWrite(t *testing.T) {
	t.Parallel()
	for _, forge := range []string{"", "github", "gitlab"} {
		dir := t.TempDir()
		o := scaffold.Options{Fleet: "acme-prod", Channel: "stable", Forge: forge, Remote: "origin", Repository: "https://git.example.com/policy"}
		written, err := scaffold.Write(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range written {
			text, err := os.ReadFile(filepath.Join(dir, w.Path))
			if err != nil || !w.New {
				t.Fatal(w, err)
			}
			if strings.HasSuffix(w.Path, ".yaml") || strings.HasSuffix(w.Path, ".yml") {
				if err := yaml.Unmarshal(text, new(any)); err != nil {
					t.Errorf("%s: %v", w.Path, err)
				}
			}
			if strings.Contains(string(text), "[[") {
				t.Errorf("%s: a template is left", w.Path)
			}
		}
		if set, err := policies.Parse(os.DirFS(filepath.Join(dir, "policies"))); err != nil || len(set.Policies()) != 1 {
			t.Fatalf("the example policy: %v", err)
		}
		text, err := os.ReadFile(filepath.Join(dir, bundles.ProjectFile))
		if err != nil {
			t.Fatal(err)
		}
		if p, err := bundles.LoadProject(text); err != nil || p.Root != "policies" || p.Repository != o.Repository {
			t.Fatal(p, err)
		}
		o.Fleet = "other"
		again, err := scaffold.Write(dir, o)
		if err != nil || again[0].New {
			t.Fatal(again, err)
		}
	}
	if _, err := scaffold.Write(t.TempDir(), scaffold.Options{Fleet: "a", Channel: "b", Forge: "svn"}); !errors.Is(err, scaffold.ErrForge) {
		t.Fatal(err)
	}
	if _, err := scaffold.Write(t.TempDir(), scaffold.Options{Fleet: "A b", Channel: "b"}); err == nil {
		t.Fatal("a fleet's name with a space")
	}
}

// TestAddKey: the trust file keeps its comments and stays one that hosts load.
func TestAddKey(t *testing.T) {
	t.Parallel()
	pem := func() []byte {
		text, err := bundlestest.NewKey(t).PublicPEM()
		if err != nil {
			t.Fatal(err)
		}
		return []byte(text)
	}
	text := []byte("# kept\nfleet: a\nchannel: b\nversion: 1\nepoch: 1\nthreshold: {audit: 1, enforce: 1}\nsigners: []\n")
	alice := pem()
	var err error
	for _, step := range []struct {
		role scaffold.Role
		name string
		key  []byte
	}{{scaffold.RoleFreshness, "clock", pem()}, {scaffold.RoleSigner, "alice", alice}, {scaffold.RoleSigner, "bob", pem()}, {scaffold.RoleCollector, "roll-1", pem()}} {
		if text, err = scaffold.AddKey(text, step.role, step.name, step.key); err != nil {
			t.Fatal(err)
		}
	}
	trust, err := bundles.LoadTrust(text)
	if err != nil || len(trust.Signers) != 2 || len(trust.Collectors) != 1 || len(trust.Freshness.Signers) != 1 || !strings.HasPrefix(string(text), "# kept") {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, c := range []struct {
		role scaffold.Role
		name string
		key  []byte
		text string
	}{
		{scaffold.RoleSigner, "alice", pem(), string(text)},
		{scaffold.RoleSigner, "carol", alice, string(text)},
		{scaffold.RoleSigner, "carol", []byte("no key"), string(text)},
		{"king", "carol", pem(), string(text)},
		{scaffold.RoleSigner, "carol", pem(), "- a list"},
		{scaffold.RoleSigner, "carol", pem(), "signers: 7"},
		{scaffold.RoleSigner, "carol", pem(), "a: ["},
	} {
		if _, err := scaffold.AddKey([]byte(c.text), c.role, c.name, c.key); err == nil {
			t.Errorf("%+v was added", c.name)
		}
	}
}

func TestFleetName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"/srv/Acme Prod": "acme-prod", "/srv/policy": "policy", "/": "fleet", "/x/___": "fleet"} {
		if got := scaffold.FleetName(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
