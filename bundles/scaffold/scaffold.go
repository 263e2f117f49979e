// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package scaffold writes the first files of a policy repository and edits its trust file. It only ever adds:
// a file that is there already stays as it is.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/muster-fleet/muster/bundles"
)

//go:embed files
var files embed.FS

// Options of a new policy repository.
type Options struct {
	Fleet      string
	Channel    string
	Forge      string // "", github or gitlab
	Repository string // where the source is, for the release document; may be empty
	Remote     string
}

// ErrForge is an unknown forge.
var ErrForge = errors.New("the forge is github or gitlab")

// Written is one file of the scaffold.
type Written struct {
	Path string `json:"path"`
	New  bool   `json:"new"` // false: it was there and was left alone
}

// plan maps the templates to their places.
func (o Options) plan() (map[string]string, error) {
	out := map[string]string{
		"files/muster.yaml.tmpl":           bundles.ProjectFile,
		"files/trust.yaml.tmpl":            "trust.yaml",
		"files/example.yaml.tmpl":          "policies/protect-shadow.yaml",
		"files/hosts.allowed_signers.tmpl": "policies/hosts.allowed_signers",
	}
	switch o.Forge {
	case "":
	case "github":
		out["files/github.yaml.tmpl"] = ".github/workflows/muster.yaml"
	case "gitlab":
		out["files/gitlab.yaml.tmpl"] = ".gitlab-ci.yml"
	default:
		return nil, ErrForge
	}
	return out, nil
}

// Write makes the files below dir that are not there.
func Write(dir string, o Options) ([]Written, error) {
	if !bundles.ValidName(o.Fleet) || !bundles.ValidName(o.Channel) {
		return nil, fmt.Errorf("fleet %q and channel %q must be names of a-z, 0-9, . and -", o.Fleet, o.Channel)
	}
	plan, err := o.plan()
	if err != nil {
		return nil, err
	}
	var out []Written
	for _, tmpl := range sortedKeys(plan) {
		text, err := render(tmpl, o)
		if err != nil {
			return out, err
		}
		isNew, err := writeNew(filepath.Join(dir, filepath.FromSlash(plan[tmpl])), text)
		if err != nil {
			return out, err
		}
		out = append(out, Written{Path: plan[tmpl], New: isNew})
	}
	return out, nil
}

func render(name string, o Options) ([]byte, error) {
	text, err := files.ReadFile(name)
	if err != nil {
		return nil, err
	}
	t, err := template.New(name).Delims("[[", "]]").Option("missingkey=error").Parse(string(text))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, o)
	return b.Bytes(), err
}

func writeNew(path string, data []byte) (bool, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, werr := f.Write(data)
	return true, errors.Join(werr, f.Close())
}

// FleetName makes a fleet's name out of a directory's.
func FleetName(dir string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, filepath.Base(dir))
	if name = strings.Trim(name, "-."); bundles.ValidName(name) {
		return name
	}
	return "fleet"
}
