// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// policyRows are properly signed releases whose policies are wrong.
func policyRows() []row {
	const head = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: x}\nspec:\n  nodeSelector: {matchLabels: {kubearmor.io/hostname: \"*\"}}\n"
	const rule = "  file: {matchPaths: [{path: /etc/x}]}\n  action: Block\n"
	file := func(input, want, name, text string) row {
		return pushed("Policies", input, want, func(w *world) map[string][]byte {
			files := w.wrong()
			files[name] = []byte(text)
			return w.release(files, w.next())
		})
	}
	one := func(input, text string) row { return file(input, "policy", "q.yaml", text) }
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'j'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%[3]c,*%[3]c,*%[3]c,*%[3]c,*%[3]c,*%[3]c,*%[3]c,*%[3]c,*%[3]c,*%[3]c]\n", c, c, c-1)
	}
	return []row{
		one("an unknown field", head+"  severty: 5\n"+rule),
		one("a doubled key", head+"  severity: 5\n  severity: 6\n"+rule),
		one("an unknown kind", strings.Replace(head, "KubeArmorHostPolicy", "KubeArmorHostPolice", 1)+rule),
		one("an unknown action", head+strings.Replace(rule, "Block", "Blokc", 1)),
		one("a relative path", head+strings.Replace(rule, "/etc/x", "etc/x", 1)),
		one("a pattern that does not close", head+"  file: {matchPatterns: [{pattern: \"/etc/[a\"}]}\n  action: Block\n"),
		one("no YAML", "kind: ["),
		one("invalid UTF-8", "kind: \xff\xfe"),
		one("an alias bomb of 10^10 nodes", bomb),
		one("nested 10,000 deep", strings.Repeat("[", 10_000)),
		one("two policies of one name", head+rule+"---\n"+head+rule),
		one("one bad policy among good ones", head+rule+"---\n"+head+"  action: Deny\n"),
		one("1 MB of garbage", strings.Repeat("\x00garbage", 1<<17)),
		pushed("Policies", "10 MB of comments", "limits", func(w *world) map[string][]byte {
			huge := bytes.Repeat([]byte("# comment\n"), 1<<20)
			sum := sha256.Sum256(huge)
			all := w.edited(w.wrong(), func(doc map[string]any) {
				doc["files"] = append(doc["files"].([]any), map[string]any{"path": "q.yaml", "size": len(huge), "sha256": hex.EncodeToString(sum[:])})
			})
			all["q.yaml"] = huge
			return all
		}),
		file("hosts.allowed_signers is garbage", "policy", "hosts.allowed_signers", "web-1 ssh-ed25519 !!!\n"),
	}
}

// configRows break musterd.yaml under a running agent.
func configRows() []row {
	text := func(input string, content func(w *world) string) row {
		return row{area: "musterd.yaml, on reload", input: input, want: "Trouble/config", plant: func(w *world) {
			w.must(os.WriteFile(w.path("musterd.yaml"), []byte(content(w)), 0o600))
			w.reloaded()
		}}
	}
	added := func(input, line string) row {
		return text(input, func(w *world) string { return w.goodConfig() + line + "\n" })
	}
	return []row{
		added("an unknown key", "sauce: {}"),
		added("a doubled key", "socket: /tmp/x"),
		added("a mode that does not exist", "mode: enforec"),
		added("an alias", "protect: *x"),
		added("a second document", "---\nmode: \"off\""),
		text("empty", func(*world) string { return "" }),
		text("garbage", func(*world) string { return "\x00\xff{" }),
		text("2 MB", func(w *world) string { return w.goodConfig() + strings.Repeat("# filler\n", 1<<18) }),
		text("cut in the middle", func(w *world) string { return w.goodConfig()[:len(w.goodConfig())/2] }),
		{area: "musterd.yaml, on reload", input: "missing", want: "Trouble/config", plant: func(w *world) {
			w.must(os.Remove(w.path("musterd.yaml")))
			w.reloaded()
		}},
		{area: "musterd.yaml, on reload", input: "a directory", want: "Trouble/config", plant: func(w *world) {
			w.must(os.Remove(w.path("musterd.yaml")))
			w.must(os.Mkdir(w.path("musterd.yaml"), 0o700))
			w.reloaded()
		}},
		{area: "musterd.yaml, on reload", input: "a source of another protocol", want: "Unreachable/source", plant: func(w *world) {
			w.must(os.WriteFile(w.path("musterd.yaml"), []byte(strings.Replace(w.goodConfig(), "file://", "ftp://", 1)), 0o600))
			w.reloaded()
			w.looked()
		}},
	}
}

// trustFileRows break trust.yaml under a running agent.
func trustFileRows() []row {
	const area = "trust.yaml, on reload"
	text := func(input, want string, content func(w *world) string) row {
		return row{area: area, input: input, want: want, plant: func(w *world) {
			w.must(os.WriteFile(w.path("trust.yaml"), []byte(content(w)), 0o600))
			w.reloaded()
		}}
	}
	added := func(input, lines string) row {
		return text(input, "Trouble/trust", func(w *world) string { return w.goodTrust() + lines })
	}
	return []row{
		added("an unknown field", "wavs: []\n"),
		added("a doubled key", "fleet: other\n"),
		added("a pattern in its scope", "scope: {kinds: [\"*\"]}\n"),
		added("a pattern inside a host name of its scope", "scope: {hosts: [\"web*1\"]}\n"),
		added("2 MB", strings.Repeat("# filler\n", 1<<18)),
		added("more than 1 MB, a revocation at its end", strings.Repeat("# filler\n", 1<<17)+"revoked: {keys: []}\n"),
		text("empty", "Trouble/trust", func(*world) string { return "" }),
		text("garbage", "Trouble/trust", func(*world) string { return "\x00\xff{" }),
		text("cut in a key", "Trouble/trust", func(w *world) string { return w.goodTrust()[:300] }),
		text("the same key under two names", "Trouble/trust", func(w *world) string {
			return strings.Replace(w.goodTrust(), "signers:\n", "signers:\n"+bundlestest.Signer(w.t, "carol", w.fleet.Keys["alice"]), 1)
		}),
		text("thresholds that nobody can reach", "Trouble/trust", func(w *world) string {
			return strings.Replace(w.goodTrust(), "enforce: 2", "enforce: 3", 1)
		}),
		text("of another fleet", "Distrusted", func(w *world) string { return strings.Replace(w.goodTrust(), "acme-prod", "acme-test", 1) }),
		text("revokes a key of the release in force", "Revoked", func(w *world) string {
			return w.goodTrust() + "revoked: {keys: [" + w.fleet.Keys["alice"].ID() + "]}\n"
		}),
		{area: area, input: "writable by others", want: "Trouble/config", plant: func(w *world) {
			w.must(os.Chmod(w.path("trust.yaml"), 0o606))
			w.reloaded()
		}},
		{area: area, input: "missing", want: "Trouble/config", plant: func(w *world) {
			w.must(os.Remove(w.path("trust.yaml")))
			w.reloaded()
		}},
	}
}

// labelRows break the labels under a running agent.
func labelRows() []row {
	const area = "labels.yaml, on reload"
	text := func(input, content string) row {
		return row{area: area, input: input, want: "Trouble/config", plant: func(w *world) {
			w.must(os.WriteFile(w.path("labels.yaml"), []byte(content), 0o600))
			w.reloaded()
		}}
	}
	return []row{
		text("no mapping", "- role\n"),
		text("a number", "role: 7\n"),
		text("garbage", "\x00\xff{"),
		text("1 MB", strings.Repeat("# filler\n", 1<<17)),
		{area: area, input: "missing", want: "Trouble/config", plant: func(w *world) {
			w.must(os.Remove(w.path("labels.yaml")))
			w.reloaded()
		}},
	}
}
