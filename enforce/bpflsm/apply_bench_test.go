// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	inventoryhost "github.com/muster-fleet/muster/inventory/host"
	"github.com/muster-fleet/muster/policies"
)

// BenchmarkApply measures on this machine what comes between parsed policies and their ruleset in force, where nothing has to be
// attached for it: names resolved, compiled, checked, laid out, files marked, tables filled, the slot swapped. No
// program is attached, so nothing of this machine is decided on. Half of the rules are on files and half on programs, all of
// which are there, ten in a policy. "apply" puts all of them in force, "change" another path in one of them. It
// needs the right to load programs.
func BenchmarkApply(b *testing.B) {
	backend := unattached(b)
	pairs := enforce.DefaultProtect(inventoryhost.Programs(os.DirFS("/")), enforce.AgentPaths{})
	for _, of := range []struct {
		name  string
		rules int
		all   bool
	}{{"apply-100", 100, true}, {"apply-1000", 1000, true}, {"apply-10000", 10_000, true}, {"change-10000", 10_000, false}} {
		list := fleetOf(b, of.rules)
		b.Run(of.name, func(b *testing.B) {
			applyOnce(b, backend, list, pairs, stages{})
			began, spent := used(b), stages{}
			for turn := 0; b.Loop(); turn++ {
				if of.all {
					backend.around = nil // as if nothing had been there
				}
				list[0].Rules[0].Object.Value = fmt.Sprintf("/srv/muster-bench/turn-%d", turn)
				applyOnce(b, backend, list, pairs, spent)
			}
			b.ReportMetric((used(b)-began)/float64(b.N), "cpu-ms/op")
			for stage, ms := range spent {
				b.ReportMetric(ms/float64(b.N), stage+"-ms")
			}
		})
	}
}

// stages are the CPU milliseconds of each step.
type stages map[string]float64

func applyOnce(b *testing.B, backend *Backend, list []*policies.Policy, pairs []enforce.ProtectPair, spent stages) {
	b.Helper()
	var rs *enforce.Ruleset
	var image *Image
	var aliases map[string]string
	steps := []struct {
		name string
		do   func() error
	}{
		{"resolve", func() error {
			aliases = inventoryhost.Resolve(os.DirFS("/"), enforce.LiteralPaths(list))
			return nil
		}},
		{"compile", func() error {
			rs, _ = enforce.Compile(enforce.CompileInput{
				Subject: enforce.Host, Policies: list, Aliases: aliases, Capabilities: backend.Capabilities(),
			})
			return nil
		}},
		{"protect", func() error {
			if why := enforce.CheckProtect(rs, pairs); why != "" {
				return errors.New(why)
			}
			return nil
		}},
		{"render", func() (err error) { image, err = render(rs, testKey); return err }},
		{"mark", func() error { return backend.markChanged(b.Context(), image) }},
		{"fill", func() error {
			return publish(backend.maps[bpf.MusterMapSlots], innerSpec(backend.spec), image.Bytes)
		}},
		{"sweep", func() error { return backend.sweepMarks(image) }},
	}
	for _, step := range steps {
		began := used(b)
		if err := step.do(); err != nil {
			b.Fatal(step.name, err)
		}
		spent[step.name] += used(b) - began
	}
}

// unattached is a backend with maps and iterators, and nothing attached.
func unattached(b *testing.B) *Backend {
	b.Helper()
	backend := must(New(Config{}))
	h := must(backend.host())
	set, err := load(b.Context(), h, nil, backend.ringBytes, loading{iterators: true, instance: 1})
	if err != nil {
		b.Skipf("this machine does not load programs: %v", err)
	}
	b.Cleanup(set.close)
	h.forget()
	backend.loaded, backend.maps = set, set.Maps
	if err := backend.claim(); err != nil {
		b.Fatal(err)
	}
	return backend
}

// fleetOf makes n rules, ten in a policy, and their files.
func fleetOf(b *testing.B, n int) []*policies.Policy {
	b.Helper()
	dir := b.TempDir()
	list := make([]*policies.Policy, 0, n/10)
	for i := range n {
		if i%10 == 0 {
			list = append(list, &policies.Policy{ID: policies.ID{Kind: policies.KindHost, Name: fmt.Sprintf("policy-%05d", i/10)}})
		}
		class := policies.ClassFile
		if i%2 == 1 {
			class = policies.ClassProcess
		}
		path := fmt.Sprintf("%s/%d/object-%d", dir, i%97, i)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			b.Fatal(err)
		}
		p := list[len(list)-1]
		p.Rules = append(p.Rules, policies.Rule{
			Index: i % 10, Class: class, Action: policies.ActionBlock,
			Object: policies.Object{Kind: policies.ObjectPath, Value: path},
		})
	}
	return list
}

// used is the CPU time of this process in milliseconds: the machine may be busy otherwise.
func used(b *testing.B) float64 {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return float64(t.Nano()) / 1e6
}
