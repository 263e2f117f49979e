// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"errors"
	"strings"
	"testing"
)

const relabelled = `# first
kind: KubeArmorHostPolicy
metadata:
  name: a
  labels:
    mode: audit
---
kind: KubeArmorHostPolicy
metadata:
  name: b # "é" stays
  labels: {team: web, "mode": "audit" } # so does this
`

// TestRelabel changes one word of one line.
func TestRelabel(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"a": "    mode: enforce", "b": `  labels: {team: web, "mode": "enforce" } # so does this`,
	} {
		c, err := Relabel("f.yaml", []byte(relabelled), ID{Kind: KindHost, Name: name}, "mode", "enforce")
		if err != nil {
			t.Fatal(err)
		}
		if c.New != line || strings.Replace(relabelled, c.Old+"\n", c.New+"\n", 1) != string(c.Text) {
			t.Errorf("%s: %+v\n%s", name, c, c.Text)
		}
	}
	if _, err := Relabel("f.yaml", []byte(relabelled), ID{Kind: KindHost, Name: "c"}, "mode", "enforce"); !errors.Is(err, ErrNoLabel) {
		t.Error(err)
	}
	if _, err := Relabel("f.yaml", []byte("kind: [\n"), ID{}, "mode", "enforce"); err == nil {
		t.Error("no YAML")
	}
	folded := "kind: KubeArmorHostPolicy\nmetadata: {name: a, labels: {mode: &x audit}}\n"
	if _, err := Relabel("f.yaml", []byte(folded), ID{Kind: KindHost, Name: "a"}, "mode", "enforce"); err == nil {
		t.Error("an anchor was overwritten")
	}
}
