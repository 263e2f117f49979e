// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/inventory/host"
	"github.com/muster-fleet/muster/reconciler/config"
)

// Protect is what keeps the host manageable: what is found on every host, what the agent needs with its configuration, and
// what the operator adds. The paths are resolved like those of rules.
func (h *hostFacts) Protect() []enforce.ProtectPair {
	cfg := h.cfg.Load()
	binary, err := os.Executable()
	if err != nil {
		h.log.Warn("the agent does not know its own path", "error", err)
	}
	path, err := filepath.Abs(h.path)
	if err != nil {
		h.log.Warn("the agent does not know its configuration's path", "error", err)
	}
	agent := enforce.AgentPaths{Binary: binary, Files: agentFiles(cfg), Reads: append(agentReads(cfg), path)}
	pairs := enforce.DefaultProtect(host.Programs(h.root), agent)
	for _, p := range cfg.Protect {
		pairs = append(pairs, enforce.ProtectFor(p.Source, p.Object)...)
	}
	return enforce.ResolveProtect(pairs, h.Resolve(enforce.ProtectPaths(pairs)))
}

// needed is what the agent reads of the machine before it is exempt from its own rules and cannot do without. A restarted
// agent, and more so one of another version, is an ordinary process under the pinned ruleset until then.
var needed = []string{
	"/proc/kallsyms", "/proc/sys/kernel/hostname", "/proc/sys/kernel/osrelease", "/sys/kernel/security/lsm",
	"/sys/kernel/btf/vmlinux", "/sys/devices/system/cpu/possible",
	enforce.ProcessFiles + "stat", enforce.ProcessFiles + "mountinfo", enforce.ProcessFiles + "fdinfo/9",
}

// agentReads are the files that the agent reads: the machine's, and what its configuration names.
func agentReads(cfg *config.Config) []string { return append(slices.Clone(needed), namedFiles(cfg)...) }

// namedFiles are the files that a configuration names, sorted.
func namedFiles(cfg *config.Config) []string {
	files := []string{cfg.Trust, cfg.Labels, cfg.HostKey}
	credentials := []config.Credentials{cfg.Status.Credentials}
	credentials = append(credentials, slices.Collect(maps.Values(cfg.Source.AllCredentials("")))...)
	for _, t := range cfg.Tenants {
		files = append(files, t.Trust)
		credentials = append(credentials, slices.Collect(maps.Values(t.Source.AllCredentials("")))...)
	}
	for _, c := range credentials {
		files = append(files, slices.Collect(maps.Values(c.Files()))...)
	}
	slices.Sort(files) // maps have no order, and a list that differs is compiled anew
	return slices.DeleteFunc(slices.Compact(files), func(path string) bool { return path == "" })
}

// stateFiles are in the agent's state directory, and cacheFiles in its cache: a rule may block one by its name.
var (
	stateFiles = []string{"lock", "journal", "kept", "suspended", "report/last.json"}
	markFiles  = []string{"seen", "seen.old", "trust"}
	cacheFiles = []string{
		"enforce-0000000000000001-0000000000000001-0123456789abcdef.release",
		"audit-0000000000000001-0000000000000001-0123456789abcdef.release",
	}
)

// agentFiles are the files that the agent reads and writes. A directory stands for another file in it.
func agentFiles(cfg *config.Config) []string {
	files := []string{cfg.StateDir + "/", cfg.CacheDir + "/", cfg.BPFFS + "/", filepath.Join(cfg.BPFFS, "layout", "link"), cfg.Socket}
	if cfg.Events.Output == "file" {
		files = append(files, cfg.Events.File, filepath.Dir(cfg.Events.File)+"/")
	}
	if cfg.Metrics.Socket != "" {
		files = append(files, cfg.Metrics.Socket)
	}
	below := func(dir string, names ...string) {
		for _, name := range names {
			files = append(files, filepath.Join(dir, name))
		}
	}
	below(cfg.StateDir, stateFiles...)
	below(cfg.StateDir, markFiles...)
	below(cfg.CacheDir, cacheFiles...)
	for _, t := range cfg.Tenants {
		below(filepath.Join(cfg.StateDir, "tenants", t.Name), markFiles...)
		below(filepath.Join(cfg.CacheDir, "tenants", t.Name), cacheFiles...)
	}
	return files
}
