// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package host is the outer half of the conformance runner: it builds what goes into a virtual machine,
// boots one for each backend, has the guest package carry the scenarios out inside, and passes on a line
// for each scenario and backend as it comes.
package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
)

// Programs are the C programs of the subjects, built.
type Programs struct{ Probe, Helper, Dyntool string }

// program is one C program: its folder under test/conformance, and how it is linked.
type program struct {
	folder string
	flags  []string
}

// The probe and the helper are static, so that nothing but their own doing touches a file.
var cPrograms = []program{
	{"probe", []string{"-static", "-s"}},
	{"helper", []string{"-static", "-s"}},
	{"dyntool", nil},
}

// errBuild is the kind of every failure to build.
var errBuild = errors.New("building for the conformance run")

// BuildPrograms compiles the C programs below source (test/conformance) into the cache, by content.
func BuildPrograms(ctx context.Context, source, cache string) (Programs, error) {
	built := map[string]string{}
	for _, p := range cPrograms {
		path, err := p.build(ctx, filepath.Join(source, p.folder), cache)
		if err != nil {
			return Programs{}, err
		}
		built[p.folder] = path
	}
	return Programs{Probe: built["probe"], Helper: built["helper"], Dyntool: built["dyntool"]}, nil
}

func (p program) build(ctx context.Context, folder, cache string) (string, error) {
	all, err := filepath.Glob(filepath.Join(folder, "*.[ch]"))
	if err != nil || len(all) == 0 {
		return "", fmt.Errorf("%w: no sources in %s", errBuild, folder)
	}
	sort.Strings(all)
	sum := sha256.New()
	var sources []string
	for _, name := range all {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("%w: %w", errBuild, err)
		}
		fmt.Fprintf(sum, "%s %d\n", filepath.Base(name), len(text))
		sum.Write(text)
		if filepath.Ext(name) == ".c" {
			sources = append(sources, name)
		}
	}
	fmt.Fprint(sum, p.flags)
	out := filepath.Join(cache, p.folder+"-"+hex.EncodeToString(sum.Sum(nil))[:16])
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	args := append([]string{"-O2", "-Wall", "-Wextra", "-Werror"}, p.flags...)
	return out, into(ctx, out, func(ctx context.Context, to string) *exec.Cmd {
		return exec.CommandContext(ctx, "gcc", append(append(args, "-o", to), sources...)...)
	})
}

// into runs a command that makes one file, and puts the file in place when it is complete.
func into(ctx context.Context, out string, command func(ctx context.Context, to string) *exec.Cmd) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return fmt.Errorf("%w: %w", errBuild, err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(out), "build-")
	if err != nil {
		return fmt.Errorf("%w: %w", errBuild, err)
	}
	defer os.RemoveAll(dir)
	aside := filepath.Join(dir, filepath.Base(out))
	cmd := command(ctx, aside)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s: %w\n%s", errBuild, filepath.Base(out), err, said)
	}
	if err := os.Rename(aside, out); err != nil {
		return fmt.Errorf("%w: %w", errBuild, err)
	}
	return nil
}

// agentPackages are the Go programs of a run.
const (
	musterd = "github.com/muster-fleet/muster/cmd/musterd"
	inner   = "github.com/muster-fleet/muster/test/conformance/cmd/conformance-guest"
)

// Agents are the Go programs of a run: the agent twice, under two versions, so that an upgrade replaces one
// program by another; and the inner half of the runner.
type Agents struct{ First, Second, Inner string }

// BuildAgents compiles the Go programs into dir.
func BuildAgents(ctx context.Context, dir string) (Agents, error) {
	a := Agents{
		First: filepath.Join(dir, "musterd-1"), Second: filepath.Join(dir, "musterd-2"),
		Inner: filepath.Join(dir, "conformance-guest"),
	}
	for _, b := range []struct{ out, pkg, flags string }{
		{a.First, musterd, "-s -w -X main.version=conformance-1"},
		{a.Second, musterd, "-s -w -X main.version=conformance-2"},
		{a.Inner, inner, "-s -w"},
	} {
		err := into(ctx, b.out, func(ctx context.Context, to string) *exec.Cmd {
			cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", b.flags, "-o", to, b.pkg)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			return cmd
		})
		if err != nil {
			return Agents{}, err
		}
	}
	return a, nil
}
