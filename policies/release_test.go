// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func fileOf(kind Kind, namespace, name string) *fstest.MapFile {
	text := strings.Replace(hostHeader, "name: p", "name: "+name, 1)
	if kind == KindContainer {
		text = strings.Replace(strings.Replace(podHeader, "name: p", "name: "+name, 1), ", namespace: web", namespace, 1)
	}
	return &fstest.MapFile{Data: []byte(text)}
}

func TestParseOrdersByID(t *testing.T) {
	t.Parallel()
	set, err := Parse(fstest.MapFS{
		"z.yaml": fileOf(KindContainer, ", namespace: a", "p"), "a.yaml": fileOf(KindContainer, ", namespace: b", "p"),
		"m.yaml": fileOf(KindHost, "", "z"), "n.yaml": fileOf(KindHost, "", "a"), "empty.yaml": {Data: []byte("# nothing\n---\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, p := range set.Policies() {
		ids = append(ids, p.String())
	}
	want := "KubeArmorHostPolicy a, KubeArmorHostPolicy z, KubeArmorPolicy a/p, KubeArmorPolicy b/p"
	if have := strings.Join(ids, ", "); have != want {
		t.Errorf("%s, want %s", have, want)
	}
}

func TestDuplicatesAcrossFiles(t *testing.T) {
	t.Parallel()
	for _, files := range []fstest.MapFS{
		{"a.yaml": fileOf(KindHost, "", "p"), "b/c.yaml": fileOf(KindHost, "", "p")},
		{"a.yaml": fileOf(KindContainer, "", "p"), "b/c.yaml": fileOf(KindContainer, ", namespace: default", "p")},
	} {
		_, err := Parse(files)
		var problems Problems
		if !errors.As(err, &problems) || len(problems) != 1 || !strings.HasPrefix(problems[0].String(), "b/c.yaml:3:18: duplicate policy") ||
			!strings.Contains(problems[0].Message, "first at a.yaml:3:18") {
			t.Errorf("%v", err)
		}
	}
	_, err := Parse(fstest.MapFS{"a.yaml": fileOf(KindHost, "", "p"), "b.yaml": fileOf(KindContainer, "", "p"), "c.yaml": fileOf(KindContainer, ", namespace: x", "p")})
	if err != nil {
		t.Errorf("one name in two kinds and two namespaces: %v", err)
	}
}

// TestParseAfter checks that the cheap way and the long way answer the same, also when a file that was right
// is now a duplicate.
func TestParseAfter(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{"a.yaml": fileOf(KindHost, "", "a"), "b.yaml": fileOf(KindHost, "", "b")}
	first, err := Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	files["c.yaml"] = fileOf(KindHost, "", "c")
	delete(files, "b.yaml")
	second, err := ParseAfter(first, files)
	if err != nil {
		t.Fatal(err)
	}
	if len(second.Policies()) != 2 || second.Policies()[0] != first.Policies()[0] || second.Policies()[1].Name != "c" {
		t.Errorf("%v", second.Policies())
	}
	files["d.yaml"] = fileOf(KindHost, "", "a")
	if _, err := ParseAfter(second, files); !errors.Is(err, ErrInvalid) {
		t.Errorf("a duplicate of a known file: %v", err)
	}
	if len(first.Policies()) != 2 {
		t.Error("the earlier set changed")
	}
}

// TestReleaseIsBounded: a release of millions of rules, or of thousands of bad files, ends early.
func TestReleaseIsBounded(t *testing.T) {
	t.Parallel()
	rules := strings.Replace(hostHeader, "name: p", "name: NAME", 1) + "  action: Block\n  file:\n    matchPaths: [" +
		strings.Repeat("{path: /a, fromSource: [{path: /b}]},", MaxRules/20) + "]\n"
	many, bad := fstest.MapFS{}, fstest.MapFS{}
	for i := range 30 {
		many[fmt.Sprintf("%02d.yaml", i)] = &fstest.MapFile{Data: []byte(strings.Replace(rules, "NAME", fmt.Sprintf("p%d", i), 1))}
		bad[fmt.Sprintf("%02d.yaml", i)] = &fstest.MapFile{Data: []byte(strings.Repeat("--- a\n", 100))}
	}
	for want, files := range map[string]fstest.MapFS{
		"10.yaml:1:1: with this file the release has 110000 rules and sources; the limit is 100000": many,
		"09.yaml:1:1: too many problems: the files after this one are not looked at":                bad,
	} {
		_, err := Parse(files)
		var problems Problems
		if !errors.As(err, &problems) || len(problems) > maxProblems+1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%.300v, want %s", err, want)
		}
		hinted(t, problems)
	}
}

func TestParseRefusesLinks(t *testing.T) {
	t.Parallel()
	_, err := Parse(fstest.MapFS{"a.yaml": {Data: []byte("/etc/passwd"), Mode: fs.ModeSymlink}})
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	set, err := Parse(fstest.MapFS{"a.yaml": {Data: []byte(hostHeader + `  file:
    matchPaths:
    - path: /a
    - {path: /a}
    - {path: /a, readOnly: true}
    matchPatterns:
    - pattern: /plain
    - pattern: /etc/*/
    - pattern: /etc/*
  syscalls:
    matchPaths:
    - {path: /a, recursive: true, syscall: [read]}
`)}, "b.yaml": fileOf(KindHost, "", "empty")})
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	hinted(t, Warnings(set))
	for _, w := range Warnings(set) {
		have = append(have, w.String())
	}
	want := []string{"a.yaml:9:7: this rule repeats", "a.yaml:12:7: pattern \"/plain\" has no", "a.yaml:13:7: pattern \"/etc/*/\" can never", "a.yaml:17:7: recursive", "b.yaml:3:18: "}
	if len(have) != len(want) {
		t.Fatalf("%q", have)
	}
	for i := range want {
		if !strings.HasPrefix(have[i], want[i]) {
			t.Errorf("%s, want %s", have[i], want[i])
		}
	}
}
