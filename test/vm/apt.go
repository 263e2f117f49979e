// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// ErrNoMirror means that the machine's apt configuration names no Debian mirror.
var ErrNoMirror = errors.New("no Debian mirror in the machine's apt configuration")

// mirrors are the machine's own Debian mirrors.
type mirrors struct{ main, security, keyring string }

const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// findMirrors asks apt where it would look for Debian if it knew nothing yet: no lists need to be there, nothing
// is fetched, and every way of writing sources is understood. A security mirror that is not configured is taken to lie
// beside the main one, as it does on every public mirror.
func findMirrors(ctx context.Context) (mirrors, error) {
	nothing, err := os.MkdirTemp("", "muster-apt-")
	if err != nil {
		return mirrors{}, err
	}
	defer os.RemoveAll(nothing)
	if err := os.Mkdir(filepath.Join(nothing, "partial"), 0o755); err != nil {
		return mirrors{}, err
	}
	out, err := output(ctx, "apt-get", "-o", "Dir::State::Lists="+nothing, "update", "--print-uris")
	if err != nil {
		return mirrors{}, err
	}
	return parseMirrors(out)
}

// debianSuites are the first words of the names under which a mirror keeps Debian.
var debianSuites = []string{
	"bullseye", "bookworm", "trixie", "forky", "duke", "sid", "oldoldstable", "oldstable", "stable", "testing", "unstable",
}

// parseMirrors reads lines of the form 'URI/dists/SUITE/…' NAME SIZE.
func parseMirrors(uris string) (mirrors, error) {
	m := mirrors{keyring: debianKeyring}
	for line := range strings.Lines(uris) {
		uri, rest, ok := strings.Cut(strings.TrimPrefix(line, "'"), "/dists/")
		suite, _, _ := strings.Cut(rest, "/")
		name, part, _ := strings.Cut(suite, "-")
		if !ok || !slices.Contains(debianSuites, name) {
			continue
		}
		switch {
		case part == "security" && m.security == "":
			m.security = uri
		case part == "" && m.main == "":
			m.main = uri
		}
	}
	if m.main == "" {
		return m, ErrNoMirror
	}
	if m.security == "" {
		m.security = m.main + "-security"
	}
	return m, nil
}

// sources are the sources.list lines of one Debian release.
func (m mirrors) sources(codename string, backports bool) string {
	line := func(uri, suite string) string {
		return fmt.Sprintf("deb [signed-by=%s] %s %s main\n", m.keyring, uri, suite)
	}
	list := line(m.main, codename) + line(m.security, codename+"-security")
	if backports {
		list += line(m.main, codename+"-backports")
	}
	return list
}

// apt is a private apt: its own sources, lists and cache below dir; the machine's proxies and keys.
type apt struct {
	dir      string
	progress io.Writer
}

// newApt makes a private apt for one Debian release and fetches its lists.
func newApt(ctx context.Context, dir, codename string, backports bool, progress io.Writer) (*apt, error) {
	m, err := findMirrors(ctx)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	for name, content := range map[string]string{"etc/sources.list": m.sources(codename, backports), "etc/status": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	a := &apt{dir: dir, progress: progress}
	if _, err := a.get(ctx, "", "update"); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *apt) options() []string {
	at := func(sub string) string { return filepath.Join(a.dir, sub) }
	return []string{
		"-q", "-o", "Dir::Etc::SourceList=" + at("etc/sources.list"), "-o", "Dir::Etc::SourceParts=/dev/null",
		"-o", "Dir::Etc::Preferences=/dev/null", "-o", "Dir::Etc::PreferencesParts=/dev/null",
		"-o", "Dir::State::Lists=" + at("lists"), "-o", "Dir::State::status=" + at("etc/status"),
		"-o", "Dir::Cache=" + at("cache"), "-o", "APT::Sandbox::User=root",
		// The lists of this private apt are fetched once for each image; a pdiff chain would only be slower.
		"-o", "Acquire::PDiffs=false", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
	}
}

func (a *apt) get(ctx context.Context, dir string, args ...string) (string, error) {
	return outputIn(ctx, dir, "apt-get", append(a.options(), args...)...)
}

// newest returns the name of the newest package whose name matches the pattern.
func (a *apt) newest(ctx context.Context, pattern string) (string, error) {
	out, err := output(ctx, "apt-cache", append(a.options(), "search", "--names-only", "^linux-image-")...)
	if err != nil {
		return "", err
	}
	name := newestMatch(strings.Fields(out), regexp.MustCompile("^"+pattern+"$"))
	if name == "" {
		return "", fmt.Errorf("no package matches %s", pattern)
	}
	return name, nil
}

// newestMatch picks the name whose numbers are highest.
func newestMatch(names []string, pattern *regexp.Regexp) string {
	best := ""
	for _, name := range names {
		if pattern.MatchString(name) && (best == "" || numbersLess(best, name)) {
			best = name
		}
	}
	return best
}

var digits = regexp.MustCompile(`\d+`)

func numbersLess(a, b string) bool {
	as, bs := digits.FindAllString(a, -1), digits.FindAllString(b, -1)
	for i := range min(len(as), len(bs)) {
		x, y := strings.TrimLeft(as[i], "0"), strings.TrimLeft(bs[i], "0")
		if len(x) != len(y) {
			return len(x) < len(y)
		}
		if x != y {
			return x < y
		}
	}
	return len(as) < len(bs)
}

// unpack downloads packages and unpacks them below dir, without installing anything.
func (a *apt) unpack(ctx context.Context, dir string, packages ...string) error {
	debs := filepath.Join(a.dir, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	for _, name := range packages {
		fmt.Fprintf(a.progress, "lab: downloading %s\n", name)
	}
	if _, err := a.get(ctx, debs, append([]string{"download"}, packages...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range files {
		if _, err := output(ctx, "dpkg", "-x", deb, dir); err != nil {
			return err
		}
	}
	return os.RemoveAll(debs)
}

// output runs a program and returns what it prints; the error carries what it complained about.
func output(ctx context.Context, name string, args ...string) (string, error) {
	return outputIn(ctx, "", name, args...)
}

func outputIn(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &stdout, &stderr, dir
	// A message must not depend on the caller's language.
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, tail(stderr.String(), 1500))
	}
	return stdout.String(), nil
}

func tail(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
