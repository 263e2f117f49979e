// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
	"github.com/muster-fleet/muster/reconciler/control"
)

// team is a tenant of the world's host with a repository and one key of its own.
type team struct {
	w     *world
	name  string
	fleet *bundlestest.Fleet
	trust bundlestest.TrustFile
}

func (w *world) team(name, scope string) *team {
	w.t.Helper()
	f := bundlestest.New(w.t, name)
	v := bundlestest.First(1, name)
	v.Fleet, v.Extra = "team-"+name, scope
	tm := &team{w: w, name: name, fleet: f, trust: v}
	w.git("init", "-q", "--bare", tm.repo())
	w.teams = append(w.teams, tm.tenant())
	return tm
}

func (tm *team) repo() string { return filepath.Join(tm.w.dir, tm.name+".git") }

func (tm *team) tenant() reconciler.Tenant {
	tm.w.t.Helper()
	dir := filepath.Join(tm.w.cfg.StateDir, "tenants", tm.name)
	look := config.Source{URL: "file://" + tm.repo(), Interval: time.Hour, Timeout: 20 * time.Second}
	source, err := git.New(git.Config{URL: look.URL, Channel: "stable"})
	tm.w.must(err)
	t := reconciler.Tenant{
		Name: tm.name, Source: source, Look: look,
		Cache: bundles.NewCache(filepath.Join(dir, "cache")), Seen: bundles.NewStateFile(dir), Trusts: bundles.NewTrustStore(dir),
	}
	t.Trust, t.Links, t.Lost = t.Trusts.Load(bundlestest.Load(tm.w.t, tm.fleet.YAML(tm.w.t, tm.trust)))
	return t
}

// publish appends whatever it is given, signed by the team.
func (tm *team) publish(files map[string][]byte, sequence int64) {
	tm.w.t.Helper()
	doc, err := bundles.BuildRelease(&bundles.Trust{Fleet: tm.trust.Fleet, Channel: "stable", Epoch: 1},
		bundles.Content{Files: files, Commit: bundlestest.Commit, Issued: tm.w.began}, sequence, false)
	tm.w.must(err)
	tm.w.push(tm.repo(), tm.fleet.Sign(tm.w.t, files, doc, tm.name))
}

// push makes files the tip of a repository's channel.
func (w *world) push(repo string, files map[string][]byte) {
	w.t.Helper()
	ch, err := git.OpenChannel(git.ChannelConfig{URL: "file://" + repo, Channel: "stable"})
	w.must(err)
	tip, err := ch.Refresh(w.t.Context())
	w.must(err)
	_, err = ch.Append(w.t.Context(), tip, files, "release", time.Now())
	w.must(err)
}

// said finds a condition of the report, "" for a field that may be anything.
func (w *world) said(kind, tenant, name string) bool {
	w.t.Helper()
	return slices.ContainsFunc(w.status().Report.Conditions, func(c fleet.Condition) bool {
		return c.Type == kind && c.Tenant == tenant && (name == "" || c.Error == name)
	})
}

func (w *world) mustSay(kind, tenant, name string) {
	w.t.Helper()
	if !w.said(kind, tenant, name) {
		w.t.Fatalf("no condition %s of %q named %q: %+v", kind, tenant, name, w.status().Report.Conditions)
	}
}

func (w *world) rules(want int) {
	w.t.Helper()
	if got := w.kernel.hostRules(); got != want {
		w.t.Fatalf("%d rules in the kernel, wanted %d: %+v", got, want, w.status().Report.Conditions)
	}
}

// inNamespace is a policy for containers.
func inNamespace(namespace, name string) map[string][]byte {
	return map[string][]byte{name + ".yaml": fmt.Appendf(nil, "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\n"+
		"metadata: {name: %s, namespace: %s}\nspec:\n  selector: {matchLabels: {app: web}}\n  file:\n    matchPaths:\n      - path: /etc/x\n  action: Block\n", name, namespace)}
}

// TestTenants: two teams and the host's own policies are one ruleset, and nothing that one of them publishes, loses
// or breaks touches the others.
func TestTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	infra := w.team("infra", "scope: {kinds: [KubeArmorHostPolicy]}\n")
	shop := w.team("shop", "scope: {kinds: [KubeArmorPolicy], namespaces: [shop]}\n")
	w.publish(blocking("own", "/etc/a"), []string{"alice"}, 1, false)
	infra.publish(blocking("infra", "/etc/b", "/etc/c"), 1)
	shop.publish(inNamespace("shop", "front"), 1)
	w.start()
	if got := w.sync(); got.Outcome != control.OutcomeEnforced || len(got.Report.Releases) != 3 {
		t.Fatalf("%s %+v %+v", got.Outcome, got.Problem, got.Report.Releases)
	}
	w.rules(3)

	for name, bad := range map[string]map[string][]byte{
		"a host policy":     blocking("shop-host", "/etc/d"),
		"another namespace": inNamespace("kube-system", "front"),
		"one policy of another's among": func() map[string][]byte {
			m := inNamespace("shop", "front")
			maps.Copy(m, inNamespace("cart", "cart"))
			return m
		}(),
	} {
		shop.publish(bad, 2)
		got := w.sync()
		if got.Outcome != control.OutcomeRefused || got.Problem.Name != "out-of-scope" || got.Problem.Tenant != "shop" {
			t.Fatalf("%s: %s %+v", name, got.Outcome, got.Problem)
		}
		w.mustSay("Refused", "shop", "out-of-scope")
		w.rules(3)
	}
	infra.publish(blocking("own", "/etc/d"), 2)
	w.sync()
	w.mustSay("Refused", "infra", "name-taken")

	// Both teams are refused, and the host's own next release comes into force.
	w.publish(blocking("own", "/etc/a", "/etc/e"), []string{"alice"}, 2, false)
	w.sync()
	w.rules(4)
	if w.said("Refused", "", "") {
		t.Fatalf("%+v", w.status().Report.Conditions)
	}

	// A team's source is gone: the others go on, and so does what the team had, across a restart without any source.
	w.must(os.Rename(infra.repo(), infra.repo()+".gone"))
	w.publish(blocking("own", "/etc/a"), []string{"alice"}, 3, true)
	w.sync()
	w.mustSay("Unreachable", "infra", "")
	w.rules(3)
	w.halt()
	w.kernel = newKernel()
	w.must(os.Rename(w.repo(), w.repo()+".gone"))
	w.start()
	w.await("the rules after a reboot without any source", func() bool { return w.kernel.hostRules() == 3 })

	// What the configuration does not name any more is not enforced any more.
	w.halt()
	w.must(os.Rename(w.repo()+".gone", w.repo()))
	w.teams = nil
	w.start()
	w.sync()
	w.rules(1)
}

// TestTenantLosesEverything: a team's lost memory holds the kernel as it is until its source was looked at, and no longer.
func TestTenantLosesEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	infra := w.team("infra", "scope: {kinds: [KubeArmorHostPolicy]}\n")
	w.publish(blocking("own", "/etc/a"), []string{"alice"}, 1, false)
	infra.publish(blocking("infra", "/etc/b", "/etc/c"), 1)
	w.start()
	w.sync()
	w.rules(3)
	w.halt()
	w.must(os.RemoveAll(filepath.Join(w.cfg.StateDir, "tenants", "infra")))
	w.teams = []reconciler.Tenant{infra.tenant()}
	w.start()
	w.rules(3)
	w.sync()
	w.rules(3)
	w.halt()
	// Only its cache is lost: the marks say that there was more, and the kernel stays until the source brings it again.
	w.must(os.RemoveAll(filepath.Join(w.cfg.StateDir, "tenants", "infra", "cache")))
	w.must(os.Rename(infra.repo(), infra.repo()+".gone"))
	w.teams = []reconciler.Tenant{infra.tenant()}
	w.start()
	w.sync()
	w.mustSay("StateLost", "infra", "")
	w.rules(3)
	w.must(os.Rename(infra.repo()+".gone", infra.repo()))
	w.sync()
	w.rules(3)
	w.publish(blocking("own", "/etc/a", "/etc/d"), []string{"alice"}, 2, false)
	w.sync()
	w.rules(4)
}

// TestStolenKey: an attacker with alice's key releases; bob and the new key replace her in the trust file under a new
// epoch. Hosts revoke what they enforce, keep the kernel, and follow; also after a reboot, and with their state torn.
func TestStolenKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owners := w.owners()
	first := bundlestest.First(2, "alice", "bob")
	first.Fleet = "test"
	w.trustFile = owners.YAML(t, first)
	w.publishBy(owners, 1, blocking("own", "/etc/a"), "alice")
	w.start()
	w.sync()
	w.rules(1)
	evil := w.publishBy(owners, 9_000, blocking("evil", "/etc/b", "/etc/c"), "alice")
	w.sync()
	w.rules(2) // one key suffices to enforce in this fleet

	// Alice's key alone cannot replace the trust file.
	second := first
	second.Version, second.Signers = 2, []string{"alice", "mallory"}
	files := owners.ReleaseIn(t, 1, 9_001, blocking("evil", "/etc/b", "/etc/d"), "alice")
	owners.Succession(t, files, second, "alice", "mallory")
	w.push(w.repo(), files)
	if got := w.sync(); got.Outcome != control.OutcomeRefused || got.Problem.Name != "succession" {
		t.Fatalf("%s %+v", got.Outcome, got.Problem)
	}

	// The owners' successor holds although nothing good is beside it: the attacker's release is revoked where it is.
	second.Signers, second.Epoch = []string{"bob", "carol"}, 2
	second.Extra = "revoked: {keys: [" + owners.Keys["alice"].ID() + "], releases: [" + strings.TrimPrefix(evil, "sha256:") + "]}\n"
	files = map[string][]byte{bundles.ReleasePath: []byte("{}")}
	owners.Succession(t, files, second, "alice", "bob", "carol") // alice, who owns it still, agreed to lose her key
	w.push(w.repo(), files)
	if got := w.sync(); got.Outcome != control.OutcomeRefused || got.Problem.Name != "unsigned" {
		t.Fatalf("%s %+v", got.Outcome, got.Problem)
	}
	w.mustSay("Revoked", "", "")
	w.rules(2)
	w.halt()

	// After a restart it is the same, out of the kept links.
	w.start()
	w.mustSay("Revoked", "", "")
	w.rules(2)
	w.sync()
	w.publishNextTrust(owners, second, 2, 1, blocking("own", "/etc/a", "/etc/e", "/etc/f"), "bob", "carol")
	if got := w.sync(); got.Outcome != control.OutcomeEnforced {
		t.Fatalf("%s %+v", got.Outcome, got.Problem)
	}
	w.rules(3)
	if w.said("Revoked", "", "") {
		t.Fatal("still reported as revoked")
	}

	// The stolen key is worth nothing now, whatever number it takes, also when the links are lost.
	w.publishBy(owners, 9_002, blocking("evil", "/etc/b"), "alice")
	if got := w.sync(); got.Outcome != control.OutcomeRefused {
		t.Fatalf("%s %+v", got.Outcome, got.Problem)
	}
	w.halt()
	w.must(os.Remove(filepath.Join(w.cfg.StateDir, "trust")))
	w.start()
	if got := w.sync(); got.Outcome != control.OutcomeRefused || got.Problem.Name != "trust-rollback" {
		t.Fatalf("%s %+v", got.Outcome, got.Problem)
	}
	w.rules(3)
	w.publishNextTrust(owners, second, 2, 2, blocking("own", "/etc/a", "/etc/e"), "bob", "carol")
	if got := w.sync(); got.Outcome != control.OutcomeEnforced {
		t.Fatalf("%s %+v", got.Outcome, got.Problem)
	}
	w.rules(2)
}

// TestSleeper: a host that slept through five successions, each with another signer, catches up.
func TestSleeper(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owners := w.owners()
	v := bundlestest.First(1, "k1")
	v.Fleet = "test"
	owners.Keys["k1"] = bundlestest.NewKey(t)
	w.trustFile = owners.YAML(t, v)
	w.publishBy(owners, 1, blocking("own", "/etc/a"), "k1")
	w.start()
	w.sync()
	w.halt()
	files := map[string][]byte{}
	for n := int64(2); n <= 6; n++ {
		before, name := v.Signers[0], fmt.Sprintf("k%d", n)
		owners.Keys[name] = bundlestest.NewKey(t)
		v.Version, v.Signers = n, []string{name}
		owners.Succession(t, files, v, before, name)
	}
	maps.Copy(files, w.releaseIn(owners, 1, 700, blocking("own", "/etc/a", "/etc/b"), "k6"))
	w.push(w.repo(), files)
	w.start()
	if got := w.sync(); got.Outcome != control.OutcomeEnforced {
		t.Fatalf("%s %+v", got.Outcome, got.Problem)
	}
	w.rules(2)
	w.halt()
	w.must(os.Rename(w.repo(), w.repo()+".gone"))
	w.kernel = newKernel()
	w.start()
	w.await("the rules after a reboot, under the sixth trust file", func() bool { return w.kernel.hostRules() == 2 })
}

// owners are people whose keys the world has, by name.
func (w *world) owners() *bundlestest.Fleet {
	w.t.Helper()
	return bundlestest.New(w.t, "alice", "bob", "carol", "mallory")
}

func (w *world) releaseIn(f *bundlestest.Fleet, epoch, sequence int64, files map[string][]byte, by ...string) map[string][]byte {
	w.t.Helper()
	doc, err := bundles.BuildRelease(&bundles.Trust{Fleet: "test", Channel: "stable", Epoch: epoch},
		bundles.Content{Files: files, Commit: bundlestest.Commit, Issued: w.began}, sequence, true)
	w.must(err)
	return f.Sign(w.t, files, doc, by...)
}

// publishBy publishes a release of the first epoch and answers its digest.
func (w *world) publishBy(f *bundlestest.Fleet, sequence int64, files map[string][]byte, by ...string) string {
	w.t.Helper()
	all := w.releaseIn(f, 1, sequence, files, by...)
	w.push(w.repo(), all)
	return bundles.DigestOf(all[bundles.ReleasePath])
}

// publishNextTrust publishes a release beside the trust file that it needs.
func (w *world) publishNextTrust(f *bundlestest.Fleet, v bundlestest.TrustFile, epoch, sequence int64, files map[string][]byte, by ...string) {
	w.t.Helper()
	all := w.releaseIn(f, epoch, sequence, files, by...)
	f.Succession(w.t, all, v, "alice", "bob", "carol")
	w.push(w.repo(), all)
}
