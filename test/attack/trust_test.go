// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/sshsig"
)

// succession are attempts to replace the trust file.
func succession() []attack {
	row := func(name string, by []string, change func(v *bundlestest.TrustFile)) attack {
		return attack{
			area: "Replacing the trust file", name: name, want: "succession",
			play: func(w *world) map[string][]byte {
				v := w.nextTrust()
				change(&v)
				files := w.bad()
				w.fleet.Succession(w.t, files, v, by...)
				return files
			},
			control: func(w *world) map[string][]byte { return w.succeeded() },
		}
	}
	mine := func(v *bundlestest.TrustFile) { v.Signers = []string{"mallory", "carol"} }
	return []attack{
		row("by nobody", nil, mine),
		row("by strangers", []string{"mallory", "carol"}, mine),
		row("with one stolen key of two", []string{"alice", "mallory", "carol"}, mine),
		row("signed by the old side only", []string{"alice", "bob"}, mine),
		row("for another fleet", []string{"alice", "bob"}, func(v *bundlestest.TrustFile) { v.Fleet = "acme-test" }),
		row("two versions at once", []string{"alice", "bob"}, func(v *bundlestest.TrustFile) { v.Version = 3 }),
		row("by one that nobody may replace", []string{"alice", "bob"}, func(v *bundlestest.TrustFile) { v.Agree = 0 }),
		row("with a field of the future", []string{"alice", "bob"}, func(v *bundlestest.TrustFile) { v.Extra = "permit: all\n" }),
		{
			area: "Replacing the trust file", name: "a release of the epoch before", want: "rollback",
			play: func(w *world) map[string][]byte {
				w.push(w.succeeded())
				w.sync(false)
				w.epoch = 1
				files := w.release(wrong(), 9_000, "bob", "carol")
				w.epoch = 2
				return files
			},
		},
		{
			area: "Replacing the trust file", name: "signed with the key that was replaced", want: "revoked",
			play: func(w *world) map[string][]byte {
				w.push(w.succeeded())
				w.sync(false)
				return w.release(wrong(), w.sequence+1, "alice")
			},
		},
		{
			// The last good release stays: its signers were replaced, not revoked.
			area: "Replacing the trust file", name: "a release by those who were all replaced, and the host reboots", want: "too-few-signers",
			play:    func(w *world) map[string][]byte { return w.replaced("") },
			control: func(w *world) map[string][]byte { return w.good() },
		},
		{
			area: "Replacing the trust file", name: "a release by those who were all revoked, and the host reboots", want: "revoked", rebooted: true,
			play: func(w *world) map[string][]byte {
				return w.replaced("revoked: {keys: [" + w.fleet.Keys["alice"].ID() + ", " + w.fleet.Keys["bob"].ID() + "]}\n")
			},
			control: func(w *world) map[string][]byte { return w.good() },
		},
		{
			area: "Replacing the trust file", name: "the host lost the way to its newest trust file", want: "trust-rollback",
			play: func(w *world) map[string][]byte {
				w.push(w.succeeded())
				w.sync(false)
				w.halt()
				w.must(os.Remove(filepath.Join(w.state(), "trust")))
				w.epoch = 1
				files := w.release(wrong(), 9_000, "alice", "bob") // by the keys that the installed file names
				w.epoch = 2
				w.push(without(files, bundles.TrustDir))
				w.start()
				return nil
			},
			control: func(w *world) map[string][]byte { return w.good() },
		},
	}
}

// nextTrust replaces alice by carol, under a new epoch.
func (w *world) nextTrust() bundlestest.TrustFile {
	v := w.firstTrust()
	v.Version, v.Epoch, v.Signers = 2, 2, []string{"alice", "bob", "carol"}
	v.Extra = "revoked: {keys: [" + w.fleet.Keys["alice"].ID() + "]}\n"
	return v
}

// succeeded is a good release beside the owners' successor; later good ones carry it too.
func (w *world) succeeded() map[string][]byte {
	w.epoch, w.sign = 2, []string{"bob", "carol"}
	w.extra = func(files map[string][]byte) { w.fleet.Succession(w.t, files, w.nextTrust(), "alice", "bob", "carol") }
	return w.good()
}

// replaced puts others in the place of all signers, beside a release by those who were; the host follows and reboots.
func (w *world) replaced(extra string) map[string][]byte {
	w.t.Helper()
	v := w.firstTrust()
	v.Version, v.Signers, v.Extra = 2, []string{"carol", "shop"}, extra
	if extra != "" {
		v.Signers = append(v.Signers, "alice", "bob")
	}
	successor := func(files map[string][]byte) { w.fleet.Succession(w.t, files, v, "alice", "bob", "carol", "shop") }
	files := w.bad()
	successor(files)
	w.push(files)
	w.sync(false)
	w.halt()
	w.kernel.Reboot()
	w.start()
	w.sign, w.extra = []string{"carol", "shop"}, successor
	return nil
}

func without(files map[string][]byte, dir string) map[string][]byte {
	out := map[string][]byte{}
	for path, data := range files {
		if !strings.HasPrefix(path, dir+"/") {
			out[path] = data
		}
	}
	return out
}

// tenants are a team with its own key and source, on a host that gave it one namespace.
func tenants() []attack {
	row := func(name, want string, files map[string][]byte) attack {
		return attack{
			area: "A team on a shared host", name: name, want: want,
			setup: func(w *world) { w.addTeam("scope: {kinds: [KubeArmorPolicy], namespaces: [shop]}\n") },
			play: func(w *world) map[string][]byte {
				w.team.push(w.team.release(files, 2, "shop"))
				return nil
			},
			control: func(w *world) map[string][]byte {
				w.team.push(w.team.release(inNamespace("shop", "other"), 3, "shop"))
				return w.good() // and the host's own goes on
			},
		}
	}
	widened := row("widens its scope by succession", "succession", inNamespace("shop", "front"))
	widened.play = func(w *world) map[string][]byte {
		v := w.team.teamTrust("")
		v.Version = 2
		files := w.team.release(wrong(), 2, "shop")
		w.fleet.Succession(w.t, files, v, "shop")
		w.team.push(files)
		return nil
	}
	named := row("takes the name of a host policy", "name-taken", policy("own", free))
	named.setup = func(w *world) { w.addTeam("scope: {kinds: [KubeArmorHostPolicy]}\n") }
	named.control = func(w *world) map[string][]byte {
		w.team.push(w.team.release(policy("team", "/etc/team"), 3, "shop"))
		return w.good()
	}
	elsewhere := row("selects hosts that are not its own", "out-of-scope", onHosts("kubernetes.io/hostnamereg: 'web-2|web-1'"))
	byLabel := row("selects hosts by a label that any may have", "out-of-scope", onHosts("role: web"))
	for _, a := range []*attack{&elsewhere, &byLabel} {
		a.setup = func(w *world) { w.addTeam("scope: {kinds: [KubeArmorHostPolicy], hosts: [web-1]}\n") }
		a.control = named.control
	}
	return []attack{
		elsewhere, byLabel,
		row("signs a host policy", "out-of-scope", wrong()),
		row("signs for another namespace", "out-of-scope", inNamespace("kube-system", "front")),
		row("hides a host policy among its own", "out-of-scope", map[string][]byte{
			"a.yaml": inNamespace("shop", "front")["front.yaml"], "z.yaml": wrong()["own.yaml"],
		}),
		row("signs what cannot be read", "out-of-scope", map[string][]byte{"a.yaml": []byte("kind: [")}),
		widened, named,
		{
			area: "A team on a shared host", name: "signs the host's own release", want: "too-few-signers",
			setup: func(w *world) { w.addTeam("scope: {kinds: [KubeArmorPolicy], namespaces: [shop]}\n") },
			play:  func(w *world) map[string][]byte { return w.release(wrong(), first+1, "shop") },
		},
	}
}

// onHosts is a host policy with this nodeSelector.
func onHosts(label string) map[string][]byte {
	text := string(policy("team", free)["team.yaml"])
	return map[string][]byte{"team.yaml": []byte(strings.Replace(text, "kubernetes.io/hostname: web-1", label, 1))}
}

func inNamespace(namespace, name string) map[string][]byte {
	return map[string][]byte{name + ".yaml": []byte("apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: " + name +
		", namespace: " + namespace + "}\nspec:\n  selector: {matchLabels: {app: web}}\n  file:\n    matchPaths:\n      - path: /etc/x\n  action: Block\n")}
}

// addTeam gives the host a second pair of trust and source.
func (w *world) addTeam(scope string) {
	w.t.Helper()
	w.team = &world{
		t: w.t, dir: w.t.TempDir(), transport: w.transport, fleet: w.fleet, clock: w.clock, now: w.now, epoch: 1, sign: []string{"shop"},
		firstFiles: inNamespace("shop", "front"),
	}
	if strings.Contains(scope, "HostPolicy") {
		w.team.firstFiles = policy("team", "/etc/team")
	}
	w.team.trust = w.fleet.YAML(w.t, w.team.teamTrust(scope))
	w.team.serve()
}

func (w *world) teamTrust(scope string) bundlestest.TrustFile {
	v := bundlestest.First(1, "shop")
	v.Fleet, v.Extra = "acme-shop", scope
	return v
}

// memory is somebody, or a bad disk, at what the host remembers.
func memory() []attack {
	old := func(w *world) map[string][]byte { return w.release(wrong(), first-1, w.sign...) }
	row := func(name string, harm func(w *world)) attack {
		return attack{area: "The host's memory", name: name, want: "rollback", play: func(w *world) map[string][]byte {
			w.halt()
			harm(w)
			w.push(old(w))
			w.start()
			return nil
		}}
	}
	return []attack{
		row("the marks are cut in half, and an older release offered", func(w *world) {
			path := filepath.Join(w.state(), "seen")
			data, err := os.ReadFile(path)
			w.must(err)
			w.must(os.WriteFile(path, data[:len(data)/2], 0o600))
		}),
		row("the marks are deleted, and an older release offered", func(w *world) {
			w.must(os.Remove(filepath.Join(w.state(), "seen")))
			_ = os.Remove(filepath.Join(w.state(), "seen.old"))
		}),
		row("all of the state is deleted, and an older release offered", func(w *world) {
			w.must(os.RemoveAll(w.state())) // what is pinned in the kernel remembers
		}),
		{
			area: "The host's memory", name: "the state is set back to an older copy, and what was new then offered", want: "rollback",
			play: func(w *world) map[string][]byte {
				kept := filepath.Join(w.dir, "kept")
				w.must(os.CopyFS(kept, os.DirFS(w.state())))
				w.push(w.good())
				w.sync(false)
				w.halt()
				w.must(os.RemoveAll(w.state()))
				w.must(os.CopyFS(w.state(), os.DirFS(kept)))
				w.push(w.release(wrong(), w.sequence-1, w.sign...)) // above what the disk says
				w.start()
				return nil
			},
		},
		{
			// As after a crash between the cache and the marks: one good release is in between.
			area: "The host's memory", name: "only the marks are older than the cache, and what lies between is offered", want: "rollback",
			play: func(w *world) map[string][]byte {
				seen := filepath.Join(w.state(), "seen")
				kept, err := os.ReadFile(seen)
				w.must(err)
				w.push(w.good())
				w.sync(false)
				w.halt()
				w.must(os.WriteFile(seen, kept, 0o600))
				w.kernel.Reboot()
				w.sent = nil
				w.push(w.release(wrong(), w.sequence-1, w.sign...))
				w.start()
				return nil
			},
		},
		row("the marks are deleted, the status repository never answers, and an older release offered", func(w *world) {
			w.must(os.Remove(filepath.Join(w.state(), "seen")))
			_ = os.Remove(filepath.Join(w.state(), "seen.old"))
			w.hanging = true
		}),
		{
			area: "The host's memory", name: "the host is installed anew with its old key, and an older release offered", want: "rollback",
			play: func(w *world) map[string][]byte {
				w.halt()
				w.must(os.RemoveAll(w.state()))
				w.kernel.Reboot() // its own last report remembers
				w.push(old(w))
				w.start()
				return nil
			},
			rebooted: true,
		},
		row("the cached release is altered", func(w *world) {
			names, err := filepath.Glob(filepath.Join(w.state(), "cache", "*.release"))
			w.must(err)
			for _, name := range names {
				data, err := os.ReadFile(name)
				w.must(err)
				data[len(data)-20] ^= 1
				w.must(os.WriteFile(name, data, 0o600))
			}
		}),
	}
}

// sources are servers that answer badly, or not.
func sources() []attack {
	return []attack{
		{
			area: "The source", name: "the channel is deleted", want: "Unreachable", only: "git",
			play: func(w *world) map[string][]byte {
				w.ref("update-ref", "-d", "refs/heads/muster/stable")
				return nil
			},
		},
		{
			area: "The source", name: "the repository is gone", want: "Unreachable", only: "git",
			play: func(w *world) map[string][]byte {
				w.must(os.Rename(w.repo, w.repo+".gone"))
				return nil
			},
			control: func(w *world) map[string][]byte {
				w.must(os.Rename(w.repo+".gone", w.repo))
				return w.good()
			},
		},
		{
			area: "The source", name: "a release without a document", want: "no-release", only: "git",
			play: func(w *world) map[string][]byte { return with(w.bad(), bundles.ReleasePath, nil) },
		},
	}
}

// commits are attacks on a fleet that also asks for a signed commit.
func commits() []attack {
	row := func(name, only string, play func(w *world) map[string][]byte) attack {
		return attack{
			area: "Signed commits", name: name, want: "unsigned-commit", only: only,
			setup: func(w *world) { w.askForCommits() }, play: play,
		}
	}
	unsigned := func(w *world) map[string][]byte { w.committer = nil; return w.bad() }
	return []attack{
		row("an unsigned commit", "git", unsigned),
		row("a commit by another key", "git", func(w *world) map[string][]byte { w.committer = w.stranger; return w.bad() }),
		row("a signed commit about the release before", "git", func(w *world) map[string][]byte {
			w.push(w.bad())
			w.ref("update-ref", "refs/heads/muster/stable", w.recommitted())
			return nil
		}),
	}
}

// askForCommits makes signed commits a gate, and one key the one that passes it.
func (w *world) askForCommits() {
	w.t.Helper()
	sign := func() (func([]byte) ([]byte, error), string) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		w.must(err)
		key, err := ssh.NewSignerFromKey(private)
		w.must(err)
		line := "ann@example.com " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))
		return func(payload []byte) ([]byte, error) { return sshsig.Sign(key, "git", payload) }, line
	}
	var line string
	w.committer, line = sign()
	w.owner = w.committer
	w.stranger, _ = sign()
	v := w.firstTrust()
	v.Extra = "commits:\n  allowedSigners: |\n    " + line + "\n"
	w.trust = w.fleet.YAML(w.t, v)
}

// recommitted is the newest tree under the signed commit message of the one before.
func (w *world) recommitted() string {
	tree := w.ref("rev-parse", "refs/heads/muster/stable^{tree}")
	old := w.gitIn("", "-C", w.repo, "cat-file", "commit", "refs/heads/muster/stable^") + "\n"
	before := w.ref("rev-parse", "refs/heads/muster/stable^^{tree}")
	return w.gitIn(strings.Replace(old, before, tree, 1), "-C", w.repo, "hash-object", "-t", "commit", "-w", "--stdin")
}

// attestations are attacks on a fleet that also asks for a lint result.
func attestations() []attack {
	row := func(name string, state func(w *world, files map[string][]byte) []byte) attack {
		return attack{
			area: "Attestations", name: name, want: "attestation",
			setup: func(w *world) {
				v := w.firstTrust()
				v.Extra = "attestations:\n- type: " + bundles.PredicateLint + "\n  signers:\n" + bundlestest.Signer(w.t, "linter", w.fleet.Keys["carol"])
				w.trust = w.fleet.YAML(w.t, v)
				w.attest = func(files map[string][]byte) []byte { return w.linted("carol", files) }
			},
			play: func(w *world) map[string][]byte {
				good := w.attest
				w.attest = func(files map[string][]byte) []byte { return state(w, files) }
				files := w.bad()
				w.attest = good
				return files
			},
		}
	}
	return []attack{
		row("no lint result", func(*world, map[string][]byte) []byte { return nil }),
		row("a lint result by somebody else", func(w *world, files map[string][]byte) []byte { return w.linted("mallory", files) }),
		row("a lint result by those who release", func(w *world, files map[string][]byte) []byte { return w.linted("alice", files) }),
		row("the lint result of other files", func(w *world, _ map[string][]byte) []byte { return w.linted("carol", right(first)) }),
	}
}

func (w *world) linted(by string, files map[string][]byte) []byte {
	w.t.Helper()
	out, err := w.fleet.Keys[by].AttestLint(w.t.Context(), files, 0)
	w.must(err)
	return out
}
