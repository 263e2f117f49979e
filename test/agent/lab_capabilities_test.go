// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/test/vm"
)

// lackLab is a lab whose policies need all that the unit's capabilities are for.
type lackLab struct {
	*lab
	// file is protected, and below a directory that only its owner may search; link is another name of it elsewhere.
	file, link string
}

const namesPolicy = `apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: names}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  network:
    matchDNSQueries:
      - {domain: blocked.example}
  action: Block
`

func newLackLab(t *testing.T) *lackLab {
	t.Helper()
	l := newLab(t)
	private := filepath.Join(l.files, "private")
	k := &lackLab{lab: l, file: filepath.Join(private, "file"), link: filepath.Join(l.files, "link")}
	l.must(os.Mkdir(private, 0o700))
	l.must(os.WriteFile(k.file, []byte("x"), 0o600))
	l.must(os.Link(k.file, k.link))
	l.must(os.Chown(private, 1000, 1000))
	files := blocking("keep-out", k.file)
	files["names.yaml"] = []byte(namesPolicy)
	l.publishNext(files)
	return k
}

// begin starts an agent on a kernel that holds nothing of an earlier one's, and answers what came of the release.
func (k *lackLab) begin(names []string) *control.SyncResult {
	k.t.Helper()
	k.must(os.RemoveAll(k.bpffs))
	k.wait("what was pinned is gone", func() bool { return try(k.link) == nil && try(k.file) == nil })
	k.runWith(agentOne, names)
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	result, err := k.client.Sync(ctx, control.SyncRequest{Wait: true})
	k.must(err)
	return result
}

// enforced says that the rules are in force, and answers what was counted as lost.
func (k *lackLab) enforced(result *control.SyncResult) map[string]uint64 {
	k.t.Helper()
	if result.Outcome != control.OutcomeEnforced || result.Report.State != fleet.StateEnforced {
		k.t.Fatalf("%s, %s: %+v", result.Outcome, result.Report.State, result.Problem)
	}
	now, err := k.client.Status(k.t.Context())
	k.must(err)
	var later *control.Status
	k.wait("a round that began after what was tried", func() bool {
		later, err = k.client.Status(k.t.Context())
		return err == nil && later.Rounds > now.Rounds+1
	})
	return later.Report.Losses
}

// notPermitted says that the agent could not do it, and reports so.
func (k *lackLab) notPermitted(result *control.SyncResult) {
	k.t.Helper()
	if result.Outcome != control.OutcomeStalled || result.Problem == nil || !strings.Contains(result.Problem.Message, "operation not permitted") {
		k.t.Errorf("%s: %+v", result.Outcome, result.Problem)
	}
	if result.Report.State == fleet.StateEnforced || !slices.ContainsFunc(result.Report.Conditions, func(c fleet.Condition) bool { return c.Type == "NotApplied" }) {
		k.t.Errorf("report: %s, %+v", result.Report.State, result.Report.Conditions)
	}
}

// lacks is what comes of an agent with these capabilities, which are the unit's but for one.
var lacks = map[string]func(k *lackLab, names []string){
	"sys_admin": func(k *lackLab, names []string) {
		agent := bounded(names, agentOne, k.config())
		var out strings.Builder
		agent.Stdout, agent.Stderr = &out, &out
		k.must(agent.Start())
		late := time.AfterFunc(patience, func() { _ = agent.Process.Kill() })
		defer late.Stop()
		if err := agent.Wait(); err == nil || !strings.Contains(out.String(), "musterd: error:") || !strings.Contains(out.String(), "operation not permitted") {
			k.t.Errorf("it ended with %v: %s", err, &out)
		}
	},
	"net_admin": func(k *lackLab, names []string) {
		result := k.begin(names)
		if strings.HasPrefix(result.Report.Kernel, "6.1.") {
			k.notPermitted(result)
			return
		}
		k.enforced(result) // since BPF tokens came, with 6.9, CAP_SYS_ADMIN is enough
	},
	"dac_read_search": func(k *lackLab, names []string) {
		result := k.begin(names)
		k.allowed(k.link) // before the name is used: the kernel learns the file by that
		k.denied(k.file)
		if losses := k.enforced(result); losses["mark-unread"] == 0 {
			k.t.Errorf("no loss of the file that could not be looked at: %v", losses)
		}
	},
	"syslog": func(k *lackLab, names []string) {
		result := k.begin(names)
		k.denied(k.file)
		if losses := k.enforced(result); losses["path-unguarded"] == 0 {
			k.t.Errorf("no loss of paths that were read without their locks: %v", losses)
		}
	},
}

// TestLabCapabilities: with the unit's capabilities all is well, and without any one of them the agent says what is not.
func TestLabCapabilities(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	all := capabilities(t)
	if known := slices.Sorted(maps.Keys(lacks)); !slices.Equal(known, slices.Sorted(slices.Values(all))) {
		t.Fatalf("the unit has %v, and this test knows what %v are for", all, known)
	}
	k := newLackLab(t)
	result := k.begin(all)
	k.denied(k.link)
	k.denied(k.file)
	if losses := k.enforced(result); losses["mark-unread"]+losses["path-unguarded"] > 0 {
		t.Errorf("with all capabilities: losses %v", losses)
	}
	k.end(syscall.SIGTERM)
	for _, name := range all {
		t.Logf("without %s", name)
		lacks[name](k, slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == name }))
		k.end(syscall.SIGTERM)
	}
	k.must(os.RemoveAll(k.bpffs)) // the last of these agents is none that another one should take over from
}
