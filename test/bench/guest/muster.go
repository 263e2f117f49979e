// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/bpflsm"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/bench"
)

// errNotEnforced means that a rule was accepted and does not hold: its costs are worth nothing.
var errNotEnforced = errors.New("not enforced")

// engine is the backend that the Muster cases of a round share: attaching is much dearer than publishing.
type engine struct {
	backend  *bpflsm.Backend
	attached bool
}

// muster is the case of the engine with a number of rules, half of them on files and half on programs, at least one
// of each; with 0 it is attached and has no ruleset.
type muster struct {
	*engine
	rules int
}

func (e *engine) with(rules int) (subject, error) {
	if e.backend == nil {
		backend, err := bpflsm.New(bpflsm.Config{})
		if err != nil {
			return nil, err
		}
		e.backend = backend
	}
	return &muster{engine: e, rules: rules}, nil
}

func (m *muster) enter(ctx context.Context) (*bench.Load, error) {
	load := &bench.Load{Rules: m.rules}
	began := cpu()
	if !m.attached {
		if err := m.backend.Apply(ctx, enforce.StepAttach{Reason: "bench"}); err != nil {
			return nil, err
		}
		m.attached = true
		load.Attach = cpu() - began
	}
	if m.rules == 0 {
		return load, nil
	}
	files, programs := (m.rules+1)/2, max(1, m.rules/2)
	load.Rules = files + programs
	text := document(files, programs)
	began = cpu()
	// At first with another path in one rule.
	parsed, err := policies.ParseDocument("bench.yaml", []byte(strings.Replace(text, bench.ProgramPath(0)+"\n", "/usr/lib/muster-bench/another\n", 1)))
	if err != nil {
		return nil, err
	}
	other, err := m.compile(parsed, load.Rules)
	if err != nil {
		return nil, err
	}
	load.Compile = cpu() - began
	began = cpu()
	if err := m.backend.Apply(ctx, enforce.StepPublish{Ruleset: other}); err != nil {
		return nil, err
	}
	load.Publish = cpu() - began
	list, err := policies.ParseDocument("bench.yaml", []byte(text))
	if err != nil {
		return nil, err
	}
	began = cpu()
	ruleset, err := m.compile(list, load.Rules)
	if err != nil {
		return nil, err
	}
	if err := m.backend.Apply(ctx, enforce.StepPublish{Ruleset: ruleset}); err != nil {
		return nil, err
	}
	load.Change = cpu() - began
	// Not by this process: the engine leaves the agent's own alone.
	out, err := exec.CommandContext(ctx, os.Args[0], "-check="+strconv.Itoa(files)).CombinedOutput()
	if err != nil {
		losses, _ := m.backend.Losses()
		return nil, fmt.Errorf("%w: %s; the engine counts %v", errNotEnforced, out, losses)
	}
	return load, nil
}

// compile makes the ruleset of policies, of which nothing may be left out.
func (m *muster) compile(list []*policies.Policy, rules int) (*enforce.Ruleset, error) {
	ruleset, gaps := enforce.Compile(enforce.CompileInput{
		Subject: enforce.Host, Policies: list, Mode: enforce.ModeEnforce, Capabilities: m.backend.Capabilities(),
	})
	if len(gaps) > 0 || len(ruleset.Rules) != rules {
		return nil, fmt.Errorf("%w: %d rules of %d, gaps %v", errNotEnforced, len(ruleset.Rules), rules, gaps)
	}
	return ruleset, nil
}

func (m *muster) leave(ctx context.Context) error {
	err := errors.Join(m.backend.Apply(ctx, enforce.StepDetach{}), m.backend.Close())
	m.backend, m.attached = nil, false
	return err
}

// special are the cases that are measured when they are asked for.
var special = map[string]enforce.CompileInput{
	bench.Calls: {Policies: parsed(head +
		"  syscalls:\n    matchPaths:\n    - {path: /opt/nowhere/, recursive: true, syscall: [unlinkat]}\n")},
	bench.Visible: {Visible: []policies.Class{
		policies.ClassProcess, policies.ClassFile, policies.ClassNetwork, policies.ClassCapabilities, policies.ClassDNS,
	}},
}

// parsed is a document that is known to be good.
func parsed(text string) []*policies.Policy {
	list, err := policies.ParseDocument("bench.yaml", []byte(text))
	if err != nil {
		panic(err)
	}
	return list
}

// specialCase is the engine with one of them.
type specialCase struct {
	subject
	in enforce.CompileInput
}

func (c *specialCase) enter(ctx context.Context) (*bench.Load, error) {
	m, ok := c.subject.(*muster)
	if !ok {
		return nil, errNotEnforced
	}
	if _, err := m.enter(ctx); err != nil {
		return nil, err
	}
	c.in.Subject, c.in.Mode, c.in.Capabilities = enforce.Host, enforce.ModeEnforce, m.backend.Capabilities()
	ruleset, gaps := enforce.Compile(c.in)
	if len(gaps) > 0 {
		return nil, fmt.Errorf("%w: gaps %v", errNotEnforced, gaps)
	}
	return nil, m.backend.Apply(ctx, enforce.StepPublish{Ruleset: ruleset})
}

// check tries every rule on a file, and that what no rule names is open.
func check(files int) error {
	for i := range files {
		f, err := os.Open(bench.RulePath(i))
		if err == nil {
			f.Close()
		}
		if !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%w: %s", errors.Join(errNotEnforced, err), bench.RulePath(i))
		}
	}
	for _, path := range []string{bench.PathShort, bench.PathSixty, bench.PathBeside} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// head is how every policy here begins.
const head = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata:\n  name: bench\n" +
	"spec:\n  nodeSelector:\n    matchLabels:\n      kubernetes.io/os: linux\n  action: Block\n"

// document is one policy with many rules, as a person would write it.
func document(files, programs int) string {
	var b strings.Builder
	b.WriteString(head)
	b.WriteString("  process:\n    matchPaths:\n")
	for i := range programs {
		fmt.Fprintf(&b, "    - path: %s\n", bench.ProgramPath(i))
	}
	b.WriteString("  file:\n    matchPaths:\n")
	for i := range files {
		fmt.Fprintf(&b, "    - path: %s\n", bench.RulePath(i))
	}
	return b.String()
}

// cpu is the instructions that this process has used.
func cpu() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return uint64(t.Nano())
}
