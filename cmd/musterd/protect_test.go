// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/reconciler/config"
)

// protecting is a host with a merged /usr and this configuration.
func protecting(t *testing.T, text string) *hostFacts {
	t.Helper()
	cfg, err := config.Parse("musterd.yaml", []byte("source: {url: \"https://git.example.com/policy.git\"}\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	h := &hostFacts{path: "/etc/muster/musterd.yaml", log: slog.New(slog.DiscardHandler), root: fstest.MapFS{
		"bin":             {Data: []byte("usr/bin"), Mode: fs.ModeSymlink},
		"srv/muster":      {Data: []byte("/data/muster"), Mode: fs.ModeSymlink},
		"usr/bin/x":       {},
		"usr/bin/manager": {},
		"data/muster":     {Mode: fs.ModeDir},
	}}
	h.cfg.Store(cfg)
	return h
}

// held is why a policy of this body would be held.
func held(t *testing.T, h *hostFacts, body string) string {
	t.Helper()
	const head = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: careless}\nspec:\n  nodeSelector: {matchLabels: {kubearmor.io/hostname: \"*\"}}\n  action: Block\n  "
	list, err := policies.ParseDocument("p.yaml", []byte(head+body+"\n"))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	rs, gaps := enforce.Compile(enforce.CompileInput{
		Subject: enforce.Host, Mode: enforce.ModeEnforce, Capabilities: enforcetest.Capabilities("reference"),
		Policies: list, Aliases: h.Resolve(enforce.LiteralPaths(list)),
	})
	if len(gaps) > 0 || len(rs.Rules) != 1 {
		t.Fatalf("%s: gaps %v, rules %v", body, gaps, rs.Rules)
	}
	return enforce.CheckProtect(rs, h.Protect())
}

// TestOperatorsPairs: a pair of the configuration stands for running and reading, for every user, whatever name it has.
func TestOperatorsPairs(t *testing.T) {
	t.Parallel()
	h := protecting(t, "protect: [{source: /bin/manager, object: /bin/x}]\n")
	for _, body := range []string{
		"process: {matchPaths: [{path: /usr/bin/x}]}",
		"process: {matchPaths: [{path: /bin/x, ownerOnly: true}]}",
		"file: {matchPaths: [{path: /usr/bin/x, ownerOnly: true}]}",
		"file: {matchPatterns: [{pattern: /usr/bin/x*, fromSource: [{path: /bin/manager}]}]}",
	} {
		if why := held(t, h, body); !strings.Contains(why, "/usr/bin/manager must be able to") || !strings.Contains(why, "careless") {
			t.Errorf("%s: held %q", body, why)
		}
	}
	if why := held(t, h, "process: {matchPaths: [{path: /usr/bin/x, fromSource: [{path: /usr/bin/other}]}]}"); why != "" {
		t.Errorf("another program's: held %q", why)
	}
}

// TestAgentIsNotLockedOut: whatever the agent reads, writes or binds before it is exempt from its own rules is on the
// list, where the configuration has it.
func TestAgentIsNotLockedOut(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	usual := protecting(t, "")
	other := protecting(t, `trust: /srv/muster/trust.yaml
stateDir: /srv/muster/state
cacheDir: /srv/muster/cache
hostKey: /srv/muster/id
socket: /srv/muster/control
labels: /srv/muster/labels
status: {url: "https://git.example.com/status.git", credentials: {tokenFile: /srv/muster/token}}
events: {file: /srv/muster/log/events}
metrics: {socket: /srv/muster/metrics}
bpffs: /sys/fs/bpf/other
tenants:
  - name: shop
    trust: /srv/muster/shop.yaml
    source: {url: "https://git.example.com/shop.git", mirrors: [{url: "https://mirror.example.com/shop.git", credentials: {caFile: /srv/muster/ca}}]}
`)
	for _, c := range []struct {
		host *hostFacts
		list string
	}{
		{usual, `/etc/muster/musterd.yaml /etc/muster/trust.yaml /etc/muster/labels.yaml /var/lib/muster/host.key /var/lib/muster/seen
			/var/lib/muster/lock /var/lib/muster/journal /var/lib/muster/cache/*.release /run/muster/musterd.sock /run/muster/metrics.sock
			/var/log/muster/events.jsonl /sys/fs/bpf/muster/** /**/*.key /proc/kallsyms /proc/*/stat /proc/sys/kernel/hostname
			/sys/kernel/security/lsm /sys/kernel/btf/vmlinux`},
		{other, `/etc/muster/musterd.yaml /data/muster/trust.yaml /data/muster/state/seen /data/muster/state/tenants/shop/seen
			/data/muster/cache/tenants/shop/audit-* /data/muster/id /data/muster/control /data/muster/labels /data/muster/token
			/data/muster/log/events /data/muster/metrics /sys/fs/bpf/other/** /data/muster/shop.yaml /data/muster/ca`},
	} {
		for pattern := range strings.FieldsSeq(c.list) {
			if why := held(t, c.host, fmt.Sprintf("file: {matchPatterns: [{pattern: %q}]}", pattern)); !strings.HasPrefix(why, self) {
				t.Errorf("%s: held %q", pattern, why)
			}
		}
	}
	for _, body := range []string{
		"network: {matchProtocols: [{protocol: stream}]}",
		"file: {matchDirectories: [{dir: /etc/muster/, recursive: true}]}",
		"file: {matchDirectories: [{dir: /sys/kernel/, recursive: true}]}",
		"file: {matchDirectories: [{dir: /var/log/muster/}]}",
	} {
		if why := held(t, usual, body); !strings.HasPrefix(why, self) {
			t.Errorf("%s: held %q", body, why)
		}
	}
	if why := held(t, other, "file: {matchPaths: [{path: /var/lib/muster/seen}]}"); why != "" {
		t.Errorf("what this agent does not use: held %q", why)
	}
}
