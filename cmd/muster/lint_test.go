// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	goodPolicy = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: good}\nspec:\n" +
		"  nodeSelector: {matchLabels: {kubernetes.io/hostname: \"*\"}}\n  file: {matchPatterns: [{pattern: /plain}]}\n"
	badPolicy = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: bad}\nspec:\n" +
		"  nodeSelector: {matchLabels: {kubernetes.io/hostname: \"*\"}}\n  files: {}\n  severity: 11\n"
)

func runMuster(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRootCmd()
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	err := root.Execute()
	return out.String(), err
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := writeFile(t, filepath.Join(dir, "good/a.yaml"), goodPolicy)
	bad := writeFile(t, filepath.Join(dir, "bad/sub/a.yaml"), badPolicy)
	writeFile(t, filepath.Join(dir, "bad/muster.yaml"), "root: sub\n")
	writeFile(t, filepath.Join(dir, "bad/trust.yaml"), "not: a policy\n")

	out, err := runMuster(t, "lint", filepath.Join(dir, "good"))
	if err != nil || !strings.HasPrefix(out, good+":6:26: warning: ") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, name := range []string{filepath.Join(dir, "bad"), bad} {
		out, err = runMuster(t, "lint", filepath.Join(dir, "good"), name)
		if err == nil || err.Error() != "2 problems found" {
			t.Errorf("%v", err)
		}
		want := bad + ":6:3: unknown field \"files\" in spec\n  hint: did you mean file?\n" + bad + ":7:13: spec.severity: 11 "
		if !strings.Contains(out, want) {
			t.Errorf("%s\nwant %s", out, want)
		}
	}
	if _, err := runMuster(t, "lint", filepath.Join(dir, "none")); err == nil {
		t.Error("no error for a directory that is not there")
	}
	if _, err := runMuster(t, "lint"); err == nil {
		t.Error("no error without a directory")
	}
}

func TestLintJSON(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := writeFile(t, filepath.Join(dir, "a.yaml"), badPolicy)
	out, err := runMuster(t, "lint", "-o", "json", dir)
	if err == nil {
		t.Error("no error")
	}
	var findings []map[string]any
	if err := json.Unmarshal([]byte(out), &findings); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(findings) != 2 || findings[0]["file"] != bad || findings[0]["line"] != 6.0 || findings[0]["column"] != 3.0 || findings[0]["severity"] != "error" {
		t.Errorf("%v", findings)
	}
	writeFile(t, bad, "# empty\n")
	if out, err = runMuster(t, "lint", "-o", "json", dir); err != nil || strings.TrimSpace(out) != "[]" {
		t.Errorf("%v %s", err, out)
	}
	if _, err = runMuster(t, "lint", "-o", "xml", dir); err == nil {
		t.Error("no error for an unknown output")
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	out, err := runMuster(t, "schema", "KubeArmorPolicy")
	if err != nil || !json.Valid([]byte(out)) || !strings.Contains(out, `"additionalProperties": false`) {
		t.Errorf("%v %.200s", err, out)
	}
	if _, err := runMuster(t, "schema", "Pod"); err == nil || !strings.Contains(err.Error(), "KubeArmorHostPolicy") {
		t.Errorf("%v", err)
	}
}

// A list of hosts with an error makes every host refuse the release: lint finds it, wherever it lies.
func TestLintEnrolled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "policies/a.yaml"), goodPolicy)
	list := writeFile(t, filepath.Join(dir, "policies/hosts.allowed_signers"), "# none yet\n")
	if out, err := runMuster(t, "lint", dir); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	writeFile(t, list, "# two\nweb-1 ssh-ed25519 AAAA\nweb_2 nonsense\n")
	out, err := runMuster(t, "lint", dir)
	if err == nil || err.Error() != "2 problems found" || !strings.Contains(out, list+":2:") || !strings.Contains(out, list+":3:7: option") {
		t.Errorf("%v\n%s", err, out)
	}
}
