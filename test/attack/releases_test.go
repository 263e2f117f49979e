// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// documents are properly signed documents that say what they should not: keys that were tricked, or stolen.
func documents() []attack {
	change := func(name, want string, edit func(doc map[string]any)) attack {
		return attack{area: "Documents, all properly signed", name: name, want: want, play: func(w *world) map[string][]byte { return w.documented(wrong(), edit) }}
	}
	text := func(name, want string, edit func(doc []byte) []byte) attack {
		return attack{area: "Documents, all properly signed", name: name, want: want, play: func(w *world) map[string][]byte {
			return w.signed(wrong(), edit(w.doc(wrong(), first+1)), first+1, w.sign...)
		}}
	}
	garbage := text("no document at all", "malformed", func([]byte) []byte { return []byte("gpg: signature made") })
	garbage.only = "git" // a registry's publisher reads it first
	more := text("something after the document", "not-canonical", func(doc []byte) []byte { return append(doc, []byte("{}")...) })
	more.only = "git"
	return []attack{
		change("of another fleet", "wrong-fleet", func(doc map[string]any) { doc["name"] = "acme-test" }),
		change("of another channel", "wrong-channel", func(doc map[string]any) { doc["channel"] = "canary" }),
		change("of an epoch that no trust file names", "wrong-epoch", func(doc map[string]any) { doc["epoch"] = 2 }),
		change("with a field of the future", "unknown-field", func(doc map[string]any) { doc["permit"] = "all" }),
		change("of another schema", "unsupported", func(doc map[string]any) { doc["schema"] = "muster.dev/release/v2" }),
		change("with a sequence below one", "malformed", func(doc map[string]any) { doc["sequence"] = -1 }),
		text("with a field twice", "not-canonical", func(doc []byte) []byte {
			return bytes.Replace(doc, []byte(`"sequence":101`), []byte(`"sequence":1,"sequence":101`), 1)
		}),
		text("with a field in capitals", "not-canonical", func(doc []byte) []byte { return bytes.Replace(doc, []byte(`"epoch"`), []byte(`"Epoch"`), 1) }),
		text("with white space", "not-canonical", func(doc []byte) []byte { return append([]byte(" "), doc...) }),
		more, garbage,
	}
}

// documented is a release whose document was edited before it was signed.
func (w *world) documented(files map[string][]byte, edit func(doc map[string]any)) map[string][]byte {
	w.t.Helper()
	var doc map[string]any
	w.must(json.Unmarshal(w.doc(files, first+1), &doc))
	edit(doc)
	text, err := json.Marshal(doc)
	w.must(err)
	text, err = jsoncanonicalizer.Transform(text)
	w.must(err)
	return w.signed(files, text, first+1, w.sign...)
}

// marks are good signatures on the wrong moment.
func marks() []attack {
	row := func(name, want string, play func(w *world) map[string][]byte) attack {
		return attack{area: "Order of releases", name: name, want: want, play: play}
	}
	return []attack{
		row("an older release", "rollback", func(w *world) map[string][]byte { return w.release(wrong(), first-1, w.sign...) }),
		{
			// A registry's publisher does not push such a thing: a number has a tag of its own there.
			area: "Order of releases", name: "the same number with other content", want: "forked", only: "git",
			play: func(w *world) map[string][]byte { return w.release(wrong(), first, w.sign...) },
		},
		row("a number a million ahead", "sequence-jump", func(w *world) map[string][]byte { return w.release(wrong(), first+1_000_000, w.sign...) }),
		{
			area: "Order of releases", name: "an old release for a host without memory", want: "below-minimum",
			setup: func(w *world) {
				v := w.firstTrust()
				v.Extra = fmt.Sprintf("minSequence: %d\n", first)
				w.trust = w.fleet.YAML(w.t, v)
			},
			play: func(w *world) map[string][]byte { return w.release(wrong(), first-50, w.sign...) },
		},
		{
			area: "Order of releases", name: "a wanted rollback is a new number", want: "rollback",
			play:    func(w *world) map[string][]byte { return w.release(right(first), first-1, w.sign...) },
			control: func(w *world) map[string][]byte { w.sequence = first; return w.republished() },
		},
		{
			area: "Order of releases", name: "a release from tomorrow", want: "FutureIssued",
			play: func(w *world) map[string][]byte {
				w.sequence += 2
				files := right(w.sequence)
				return w.signed(files, w.docOf(files, w.sequence, w.now.Now().Add(30*time.Hour)), w.sequence, w.sign...)
			},
		},
		{
			area: "Order of releases", name: "the host's clock is set back", want: "ClockBackwards",
			play:    func(w *world) map[string][]byte { w.now.shift(-72 * time.Hour); return w.good() },
			control: func(w *world) map[string][]byte { w.now.shift(72 * time.Hour); return w.good() },
		},
	}
}

// republished is the first release's files under the next number.
func (w *world) republished() map[string][]byte { return w.release(right(first), first+1, w.sign...) }

// freshness are attempts to keep a host on what it has: nothing is refused, everything goes on, and it is told.
func freshness() []attack {
	asking := func(w *world) {
		v := w.firstTrust()
		v.Extra = "freshness:\n  maxAge: 26h\n  signers:\n" + bundlestest.Signer(w.t, "ci-clock", w.clock)
		w.trust = w.fleet.YAML(w.t, v)
	}
	row := func(name string, play func(w *world) map[string][]byte) attack {
		return attack{area: "Freezing", name: name, want: "Stale", setup: asking, play: play}
	}
	vouched := func(change func(w *world, files map[string][]byte, doc []byte)) func(w *world) map[string][]byte {
		return func(w *world) map[string][]byte {
			files := w.good()
			change(w, files, files[bundles.ReleasePath])
			return files
		}
	}
	return []attack{
		row("releases are withheld for two days", func(w *world) map[string][]byte { w.now.shift(48 * time.Hour); return nil }),
		row("releases are withheld and the clock set back", func(w *world) map[string][]byte {
			w.now.shift(48 * time.Hour)
			w.sync(true)
			w.now.shift(-48 * time.Hour)
			w.sync(true)
			return nil
		}),
		row("vouched for by a release signer", vouched(func(w *world, files map[string][]byte, doc []byte) {
			w.vouch(files, doc, w.sequence, w.fleet.Keys["alice"], w.now.Now())
		})),
		row("the word for the release before", vouched(func(w *world, files map[string][]byte, _ []byte) {
			w.vouch(files, w.doc(right(first), first), first, w.clock, w.now.Now())
		})),
		row("an old word", vouched(func(w *world, files map[string][]byte, doc []byte) {
			w.vouch(files, doc, w.sequence, w.clock, w.now.Now().Add(-27*time.Hour))
		})),
		row("a word from the future", vouched(func(w *world, files map[string][]byte, doc []byte) {
			w.vouch(files, doc, w.sequence, w.clock, w.now.Now().Add(8760*time.Hour))
		})),
		row("no word", vouched(func(_ *world, files map[string][]byte, _ []byte) {
			delete(files, bundles.FreshPath)
			delete(files, bundles.FreshSigPath)
		})),
	}
}

// paths are documents that name files where no file may be.
func paths() []attack {
	listed := func(name, want string, list ...string) attack {
		return attack{area: "Paths", name: name, want: want, play: func(w *world) map[string][]byte {
			return w.documented(wrong(), func(doc map[string]any) {
				var files []any
				for _, p := range list {
					sum := sha256.Sum256([]byte("x"))
					files = append(files, map[string]any{"path": p, "size": 1, "sha256": hex.EncodeToString(sum[:])})
				}
				doc["files"] = files
			})
		}}
	}
	tree := func(name, want, mode, target string) attack {
		return attack{area: "Paths", name: name, want: want, only: "git", play: func(w *world) map[string][]byte {
			w.push(w.bad())
			w.withEntry(mode, target)
			return nil
		}}
	}
	return []attack{
		listed("up and out", "path", "../etc/passwd"),
		listed("from the root", "path", "/etc/passwd"),
		listed("out in the middle", "path", "a/../../b.yaml"),
		listed("into .git", "path", ".git/hooks/post-checkout"),
		listed("into .muster", "path", ".muster/release.json"),
		listed("two names that differ in case", "path", "A.yaml", "a.yaml"),
		listed("a file that is also a directory", "path", "a", "a/b.yaml"),
		listed("letters that look alike", "path", "а.yaml"),
		listed("sixty directories deep", "limits", strings.Repeat("d/", 60)+"x.yaml"),
		tree("a symbolic link in the tree", "path", "120000", "/etc/shadow"),
		tree("a submodule in the tree", "path", "160000", ""),
	}
}

// withEntry adds one more entry to the tip's tree and keeps everything else.
func (w *world) withEntry(mode, target string) {
	w.t.Helper()
	hash := strings.Repeat("1", 40)
	kind := "commit"
	if mode != "160000" {
		kind, hash = "blob", w.gitIn(target, "-C", w.repo, "hash-object", "-w", "--stdin")
	}
	listing := w.ref("ls-tree", "refs/heads/muster/stable") + fmt.Sprintf("\n%s %s %s\tzz\n", mode, kind, hash)
	tree := w.gitIn(listing, "-C", w.repo, "mktree", "--missing")
	commit := w.ref("commit-tree", tree, "-p", "refs/heads/muster/stable", "-m", "x")
	w.ref("update-ref", "refs/heads/muster/stable", commit)
}

// limits are too much of everything.
func limits() []attack {
	row := func(name, only string, play func(w *world) map[string][]byte) attack {
		return attack{area: "Too much", name: name, want: "limits", only: only, play: play}
	}
	return []attack{
		row("a document of five megabytes", "git", func(w *world) map[string][]byte {
			return w.signed(wrong(), append(w.doc(wrong(), first+1), bytes.Repeat([]byte(" "), 5<<20)...), first+1, w.sign...)
		}),
		row("thirty thousand listed files", "", func(w *world) map[string][]byte {
			return w.documented(wrong(), func(doc map[string]any) {
				var files []any
				for n := range 30_000 {
					files = append(files, map[string]any{"path": fmt.Sprintf("f%05d", n), "size": 0, "sha256": strings.Repeat("0", 64)})
				}
				doc["files"] = files
			})
		}),
		row("a file that is said to have a gigabyte", "", func(w *world) map[string][]byte {
			return w.documented(wrong(), func(doc map[string]any) { doc["files"].([]any)[0].(map[string]any)["size"] = 1 << 30 })
		}),
		row("a few kilobytes that unpack to twenty megabytes", "git", func(w *world) map[string][]byte {
			return with(w.bad(), "bomb", make([]byte, 20<<20))
		}),
		row("a signature of a megabyte", "git", func(w *world) map[string][]byte {
			files := w.bad()
			for _, name := range w.sign {
				files[bundles.SignatureFile(name)] = append(files[bundles.SignatureFile(name)], bytes.Repeat([]byte(" "), 1<<20)...)
			}
			return files
		}),
	}
}

// contents are policies that no host should obey, by people who may sign.
func contents() []attack {
	row := func(name, want string, files map[string][]byte) attack {
		return attack{area: "Policies, all properly signed", name: name, want: want, play: func(w *world) map[string][]byte {
			return w.release(files, first+1, w.sign...)
		}}
	}
	head := "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: own}\n"
	kept := maps.Clone(wrong())
	kept["bad.yaml"] = []byte(head + "spec: {nodeSelector: {matchLabels: {a: b}}, surprise: 1, action: Block}\n")
	return []attack{
		row("one with an unknown field among good ones", "policy", kept),
		row("one that is no YAML", "policy", map[string][]byte{"own.yaml": []byte("a: [")}),
		row("one that grows by aliases", "policy", map[string][]byte{"own.yaml": []byte("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n")}),
		row("one for a tenth of the hosts first (rollout.yaml)", "unsupported", with(wrong(), "rollout.yaml", []byte("waves: [{percent: 10}]\n"))),
		row("one with a waiver (waivers/)", "unsupported", with(wrong(), "waivers/web.yaml", []byte("policy: own\n"))),
		row("everything is removed and nobody says so", "removal-not-acknowledged", map[string][]byte{"README.md": []byte("nothing")}),
		row("one for a path that leaves its directory", "policy", map[string][]byte{"own.yaml": []byte(head +
			"spec: {nodeSelector: {matchLabels: {kubernetes.io/hostname: web-1}}, file: {matchPaths: [{path: /etc/../free}]}, action: Block}\n")}),
	}
}
