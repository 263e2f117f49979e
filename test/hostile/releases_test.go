// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// bad is a good release that must not come into force because of one file that is then changed.
func (w *world) bad() map[string][]byte { return w.release(w.wrong(), w.next()) }

// doc is its document.
func (w *world) doc() []byte { return w.fleet.Doc(w.t, w.wrong(), w.next()) }

// text is a release whose document's text was edited before it was signed.
func (w *world) text(old, replacement string) map[string][]byte {
	doc := string(w.doc())
	if !strings.Contains(doc, old) {
		w.t.Fatalf("the document has no %q: %s", old, doc)
	}
	return w.signed(w.wrong(), []byte(strings.Replace(doc, old, replacement, 1)), w.next())
}

// edited is a release whose document was changed as data, made canonical and signed.
func (w *world) edited(files map[string][]byte, change func(doc map[string]any)) map[string][]byte {
	var doc map[string]any
	w.must(json.Unmarshal(w.fleet.Doc(w.t, files, w.next()), &doc))
	change(doc)
	text, err := json.Marshal(doc)
	w.must(err)
	text, err = jsoncanonicalizer.Transform(text)
	w.must(err)
	return w.signed(files, text, w.next())
}

func firstFile(doc map[string]any) map[string]any { return doc["files"].([]any)[0].(map[string]any) }

func documentRows() []row {
	one := func(input, want string, of func(w *world) map[string][]byte) row {
		return pushed("Release document", input, want, of)
	}
	change := func(input, want string, change func(w *world, doc map[string]any)) row {
		return one(input, want, func(w *world) map[string][]byte {
			return w.edited(w.wrong(), func(doc map[string]any) { change(w, doc) })
		})
	}
	return []row{
		one("no release.json", "no-release", func(w *world) map[string][]byte { return with(w.bad(), bundles.ReleasePath, nil) }),
		one("release.json is empty", "altered", func(w *world) map[string][]byte { return with(w.bad(), bundles.ReleasePath, []byte{}) }),
		one("one bit of release.json flipped", "altered", func(w *world) map[string][]byte {
			doc := bytes.Clone(w.doc())
			doc[len(doc)/2] ^= 1
			return with(w.bad(), bundles.ReleasePath, doc)
		}),
		one("release.json cut by one byte", "altered", func(w *world) map[string][]byte {
			return with(w.bad(), bundles.ReleasePath, w.doc()[:len(w.doc())-1])
		}),
		one("release.json of 5 MB", "limits", func(w *world) map[string][]byte {
			return with(w.bad(), bundles.ReleasePath, make([]byte, 5<<20))
		}),
		one("signed, but no JSON", "malformed", func(w *world) map[string][]byte { return w.signed(w.wrong(), []byte("hello"), w.next()) }),
		one("signed, nested 100,000 deep", "malformed", func(w *world) map[string][]byte {
			return w.signed(w.wrong(), bytes.Repeat([]byte("["), 100_000), w.next())
		}),
		one("signed, with a space (not canonical)", "not-canonical", func(w *world) map[string][]byte { return w.text(`"epoch":1`, `"epoch": 1`) }),
		one("signed, with a doubled field", "not-canonical", func(w *world) map[string][]byte { return w.text(`"epoch":1`, `"epoch":2,"epoch":1`) }),
		one("signed, with invalid UTF-8", "not-canonical", func(w *world) map[string][]byte { return w.text(`https://git`, "https://\xff") }),
		one("signed, followed by a second document", "not-canonical", func(w *world) map[string][]byte { return w.text(`"}}`, `"}}{}`) }),
		change("signed, with an unknown field", "unknown-field", func(_ *world, doc map[string]any) { doc["waves"] = []any{} }),
		change("signed, of an unknown schema", "unsupported", func(_ *world, doc map[string]any) { doc["schema"] = "muster.dev/release/v2" }),
		change("signed, its sequence is text", "malformed", func(_ *world, doc map[string]any) { doc["sequence"] = "7" }),
	}
}

func trustRows() []row {
	one := func(input, want string, of func(w *world) map[string][]byte) row {
		return pushed("Trust", input, want, of)
	}
	change := func(input, want string, change func(w *world, doc map[string]any)) row {
		return one(input, want, func(w *world) map[string][]byte {
			return w.edited(w.wrong(), func(doc map[string]any) { change(w, doc) })
		})
	}
	return []row{
		change("for another fleet", "wrong-fleet", func(_ *world, doc map[string]any) { doc["name"] = "acme-test" }),
		change("for another channel", "wrong-channel", func(_ *world, doc map[string]any) { doc["channel"] = "canary" }),
		change("of an epoch that the trust does not know", "wrong-epoch", func(_ *world, doc map[string]any) { doc["epoch"] = 2 }),
		one("rolled back: an older release, properly signed", "rollback", func(w *world) map[string][]byte {
			return w.release(w.wrong(), w.sequence-1)
		}),
		one("the same sequence with other content", "forked", func(w *world) map[string][]byte { return w.release(w.wrong(), w.sequence) }),
		one("the sequence jumps by a million", "sequence-jump", func(w *world) map[string][]byte {
			return w.release(w.wrong(), w.sequence+1_000_000)
		}),
		one("a successor of the trust file inside that nobody signed", "succession", func(w *world) map[string][]byte {
			return with(w.bad(), bundles.TrustFile(2), []byte("version: 2"))
		}),
		inLab(one("removes all rules without saying so", "removal-not-acknowledged", func(w *world) map[string][]byte {
			return w.release(map[string][]byte{"README.md": []byte("nothing")}, w.next())
		})),
	}
}

func fileRows() []row {
	one := func(input, want string, of func(w *world) map[string][]byte) row {
		return pushed("Files of a release", input, want, of)
	}
	change := func(input, want string, change func(doc map[string]any)) row {
		return one(input, want, func(w *world) map[string][]byte { return w.edited(w.wrong(), change) })
	}
	named := func(name string) func(map[string]any) {
		return func(doc map[string]any) { firstFile(doc)["path"] = name }
	}
	return []row{
		change("path leaves the release", "path", named("../../etc/passwd")),
		change("path absolute", "path", named("/etc/passwd")),
		change("path with a NUL", "path", named("a\x00b")),
		change("path into .git", "path", named("x/.GIT/config")),
		change("path twenty deep", "limits", named(strings.Repeat("a/", 20)+"a")),
		change("paths equal but for their case", "path", func(doc map[string]any) {
			upper := map[string]any{}
			maps.Copy(upper, firstFile(doc))
			upper["path"] = "P.yaml"
			doc["files"] = []any{upper, firstFile(doc)}
		}),
		change("file declared as 1 TB", "limits", func(doc map[string]any) { firstFile(doc)["size"] = 1 << 40 }),
		one("listed file missing", "altered", func(w *world) map[string][]byte { return with(w.bad(), "p.yaml", nil) }),
		one("listed file with other content", "altered", func(w *world) map[string][]byte {
			return with(w.bad(), "p.yaml", w.policy("secret-0"))
		}),
		one("listed file longer than signed", "altered", func(w *world) map[string][]byte {
			return with(w.bad(), "p.yaml", append(w.wrong()["p.yaml"], '\n'))
		}),
	}
}

// bundle is alice's signature as data, changed.
func (w *world) bundle(signer string, change func(b map[string]any)) []byte {
	var b map[string]any
	w.must(json.Unmarshal(bundlestest.Bundle(w.t, w.fleet.Keys[signer], w.doc()), &b))
	change(b)
	text, err := json.Marshal(b)
	w.must(err)
	return text
}

// signatures is a release with other signature files.
func (w *world) signatures(alice, bob []byte) map[string][]byte {
	return with(with(w.bad(), bundles.SignatureFile("alice"), alice), bundles.SignatureFile("bob"), bob)
}

func signatureRows() []row {
	one := func(input, want string, of func(w *world) map[string][]byte) row {
		return pushed("Signatures", input, want, of)
	}
	both := func(input, want string, change func(b map[string]any)) row {
		return one(input, want, func(w *world) map[string][]byte {
			return w.signatures(w.bundle("alice", change), w.bundle("bob", change))
		})
	}
	good := func(w *world, signer string) []byte { return bundlestest.Bundle(w.t, w.fleet.Keys[signer], w.doc()) }
	return []row{
		one("none", "unsigned", func(w *world) map[string][]byte { return w.signatures(nil, nil) }),
		one("one of two", "too-few-signers", func(w *world) map[string][]byte { return w.signatures(good(w, "alice"), nil) }),
		one("the same signer twice", "too-few-signers", func(w *world) map[string][]byte {
			return w.signatures(good(w, "alice"), good(w, "alice"))
		}),
		one("strangers'", "too-few-signers", func(w *world) map[string][]byte {
			return w.signatures(bundlestest.Bundle(w.t, bundlestest.NewKey(w.t), w.doc()), bundlestest.Bundle(w.t, bundlestest.NewKey(w.t), w.doc()))
		}),
		one("of another release", "altered", func(w *world) map[string][]byte {
			return w.signatures(w.files[bundles.SignatureFile("alice")], w.files[bundles.SignatureFile("bob")])
		}),
		one("garbage", "too-few-signers", func(w *world) map[string][]byte { return w.signatures([]byte("\x00\x01garbage"), []byte{}) }),
		one("larger than 64 KiB", "limits", func(w *world) map[string][]byte { return w.signatures(make([]byte, 65<<10), make([]byte, 65<<10)) }),
		one("a directory without end", "limits", func(w *world) map[string][]byte {
			files := w.bad()
			for i := range 70 {
				files[bundles.SignatureFile("x"+time.Duration(i).String())] = []byte("{}")
			}
			return files
		}),
		one("legacy cosign bundles", "legacy-bundle", func(w *world) map[string][]byte {
			legacy := []byte(`{"base64Signature":"MEUCIQ==","cert":"","rekorBundle":null}`)
			return w.signatures(legacy, legacy)
		}),
		both("DSSE envelopes (attestations)", "dsse", func(b map[string]any) {
			delete(b, "messageSignature")
			b["dsseEnvelope"] = map[string]any{"payload": "e30=", "payloadType": "x", "signatures": []any{map[string]any{"sig": "MEUCIQ=="}}}
		}),
		both("with certificates that nobody asked for", "too-few-signers", func(b map[string]any) {
			b["verificationMaterial"] = map[string]any{"certificate": map[string]any{"rawBytes": "MIIB"}}
		}),
	}
}

// freshRows vouch wrongly for the release that is in force: it stays so, and the report says that it is stale.
func freshRows() []row {
	one := func(input string, spoil func(w *world, files map[string][]byte)) row {
		return row{area: "fresh.json", input: input, want: "Stale", plant: func(w *world) {
			files := with(w.files, "", nil)
			spoil(w, files)
			w.push(files)
			w.looked()
		}}
	}
	fresh := func(w *world, issued time.Time, valid time.Duration) []byte {
		doc, err := bundles.BuildFresh(w.files[bundles.ReleasePath], w.sequence, issued, valid)
		w.must(err)
		return doc
	}
	return []row{
		one("missing", func(_ *world, files map[string][]byte) { delete(files, bundles.FreshPath) }),
		one("garbage", func(_ *world, files map[string][]byte) { files[bundles.FreshPath] = []byte("\x00garbage") }),
		one("its signature missing", func(_ *world, files map[string][]byte) { delete(files, bundles.FreshSigPath) }),
		one("17 KB", func(w *world, files map[string][]byte) { w.vouch(files, make([]byte, 17<<10), w.clock) }),
		one("expired", func(w *world, files map[string][]byte) {
			w.vouch(files, fresh(w, time.Now().Add(-48*time.Hour), time.Hour), w.clock)
		}),
		one("signed by a stranger", func(w *world, files map[string][]byte) {
			w.vouch(files, fresh(w, time.Now(), time.Hour), bundlestest.NewKey(w.t))
		}),
		one("for another release", func(w *world, files map[string][]byte) {
			doc, err := bundles.BuildFresh(w.doc(), w.sequence, time.Now(), time.Hour)
			w.must(err)
			w.vouch(files, doc, w.clock)
		}),
		one("signed, with an unknown field", func(w *world, files map[string][]byte) {
			text := strings.TrimSuffix(string(fresh(w, time.Now(), time.Hour)), "}") + `,"zeal":1}`
			w.vouch(files, []byte(text), w.clock)
		}),
	}
}
