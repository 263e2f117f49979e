// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// hostile is one broken or hostile release: how it differs from a good one, and its refusal's name.
type hostile struct {
	name string
	want string
	// make answers the release; it may change the trust file's extra lines and what the host has seen.
	make func(k *kit) fs.FS
}

// kit is a fleet with a good release 5 that the host holds, from which the hostile ones are made.
type kit struct {
	t       *testing.T
	fleet   *bundlestest.Fleet
	audit   int
	enforce int
	extra   string
	seen    bundles.Seen
	raw     bundles.Raw
}

func newKit(t *testing.T) *kit {
	t.Helper()
	return &kit{t: t, fleet: bundlestest.New(t, "alice", "bob"), audit: 1, enforce: 1}
}

func (k *kit) good() map[string][]byte { return k.fleet.Release(k.t, 6, "alice") }

func (k *kit) fs(files map[string][]byte) fs.FS { return bundles.NewMemFS(files) }

// with is the good release with one file replaced; nil removes it.
func (k *kit) with(path string, data []byte) fs.FS {
	files := k.good()
	files[path] = data
	if data == nil {
		delete(files, path)
	}
	return k.fs(files)
}

// signed is a release of exactly these bytes, properly signed.
func (k *kit) signed(doc []byte) fs.FS {
	return k.fs(k.fleet.Sign(k.t, bundlestest.Files(), doc, "alice"))
}

// text edits the good document's text and signs the result.
func (k *kit) text(old, replacement string) fs.FS {
	doc := string(k.fleet.Doc(k.t, bundlestest.Files(), 6))
	if !strings.Contains(doc, old) {
		k.t.Fatalf("the document has no %q: %s", old, doc)
	}
	return k.signed([]byte(strings.Replace(doc, old, replacement, 1)))
}

// edit changes the good document as data, canonicalises and signs it.
func (k *kit) edit(change func(doc map[string]any)) fs.FS {
	var doc map[string]any
	if err := json.Unmarshal(k.fleet.Doc(k.t, bundlestest.Files(), 6), &doc); err != nil {
		k.t.Fatal(err)
	}
	change(doc)
	text, err := json.Marshal(doc)
	if err != nil {
		k.t.Fatal(err)
	}
	if text, err = jsoncanonicalizer.Transform(text); err != nil {
		k.t.Fatal(err)
	}
	return k.signed(text)
}

// file appends one file of that path to a good document, sorted where it belongs, and signs it.
func (k *kit) file(paths ...string) fs.FS {
	files := map[string][]byte{}
	var list []any
	for _, p := range paths {
		files[p] = []byte("x")
		sum := sha256.Sum256([]byte("x"))
		list = append(list, map[string]any{"path": p, "size": 1, "sha256": hex.EncodeToString(sum[:])})
	}
	return k.edit(func(doc map[string]any) { doc["files"] = list })
}

// onDisk writes the good release into a directory and lets change spoil it.
func (k *kit) onDisk(change func(dir string) error) fs.FS {
	dir := k.t.TempDir()
	for p, data := range k.good() {
		p = filepath.Join(dir, p)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, data, 0o644)); err != nil {
			k.t.Fatal(err)
		}
	}
	if err := change(dir); err != nil {
		k.t.Fatal(err)
	}
	return os.DirFS(dir)
}

// bundleWith is the good bundle as data, changed.
func (k *kit) bundleWith(change func(b map[string]any)) []byte {
	doc := k.good()[bundles.ReleasePath]
	var b map[string]any
	if err := json.Unmarshal(bundlestest.Bundle(k.t, k.fleet.Keys["alice"], doc), &b); err != nil {
		k.t.Fatal(err)
	}
	change(b)
	text, err := json.Marshal(b)
	if err != nil {
		k.t.Fatal(err)
	}
	return text
}

var aliceSig = bundles.SignatureFile("alice")

func documentCases() []hostile {
	return []hostile{
		{"document missing", "no-release", func(k *kit) fs.FS { return k.with(bundles.ReleasePath, nil) }},
		{"document empty", "altered", func(k *kit) fs.FS { return k.with(bundles.ReleasePath, []byte{}) }},
		{"document byte flipped", "altered", func(k *kit) fs.FS {
			doc := bytes.Clone(k.good()[bundles.ReleasePath])
			doc[len(doc)/2] ^= 1
			return k.with(bundles.ReleasePath, doc)
		}},
		{"document truncated", "altered", func(k *kit) fs.FS {
			doc := k.good()[bundles.ReleasePath]
			return k.with(bundles.ReleasePath, doc[:len(doc)-1])
		}},
		{"document newline appended", "altered", func(k *kit) fs.FS {
			return k.with(bundles.ReleasePath, append(bytes.Clone(k.good()[bundles.ReleasePath]), '\n'))
		}},
		{"document larger than the limit", "limits", func(k *kit) fs.FS { return k.with(bundles.ReleasePath, make([]byte, 5<<20)) }},
		{"signed empty document", "malformed", func(k *kit) fs.FS { return k.signed([]byte{}) }},
		{"signed document is no JSON", "malformed", func(k *kit) fs.FS { return k.signed([]byte("hello")) }},
		{"signed document nested 100000 deep", "malformed", func(k *kit) fs.FS {
			return k.signed(bytes.Repeat([]byte("["), 100_000))
		}},
		{"signed document with whitespace", "not-canonical", func(k *kit) fs.FS { return k.text(`"epoch":1`, `"epoch": 1`) }},
		{"signed document with fields out of order", "not-canonical", func(k *kit) fs.FS {
			return k.text(`{"channel":"stable","epoch":1`, `{"epoch":1,"channel":"stable"`)
		}},
		{"signed document with a doubled field", "not-canonical", func(k *kit) fs.FS {
			return k.text(`"epoch":1`, `"epoch":2,"epoch":1`)
		}},
		{"signed document with a field in other case", "not-canonical", func(k *kit) fs.FS { return k.text(`"epoch"`, `"Epoch"`) }},
		{"signed document with an escaped character", "not-canonical", func(k *kit) fs.FS {
			return k.text(`"stable"`, `"st\u0061ble"`)
		}},
		{"signed document with invalid UTF-8", "not-canonical", func(k *kit) fs.FS {
			return k.text(`https://git.example.com/policy`, "https://git.example.com/\xff")
		}},
		{"signed document followed by another", "not-canonical", func(k *kit) fs.FS { return k.text(`"}}`, `"}}{}`) }},
		{"signed document with an unknown field", "unknown-field", func(k *kit) fs.FS {
			return k.edit(func(d map[string]any) { d["waves"] = []any{} })
		}},
		{"signed document with an unknown field in a file", "unknown-field", func(k *kit) fs.FS {
			return k.edit(func(d map[string]any) { d["files"].([]any)[0].(map[string]any)["mode"] = "0755" })
		}},
		{"signed document of another schema", "unsupported", func(k *kit) fs.FS {
			return k.edit(func(d map[string]any) { d["schema"] = "muster.dev/release/v2" })
		}},
		{"sequence zero", "malformed", func(k *kit) fs.FS { return k.edit(func(d map[string]any) { d["sequence"] = 0 }) }},
		{"sequence negative", "malformed", func(k *kit) fs.FS { return k.edit(func(d map[string]any) { d["sequence"] = -1 }) }},
		{"sequence beyond exact numbers", "not-canonical", func(k *kit) fs.FS {
			return k.text(`"sequence":6`, `"sequence":9007199254740993`)
		}},
		{"sequence as a string", "malformed", func(k *kit) fs.FS { return k.edit(func(d map[string]any) { d["sequence"] = "6" }) }},
		{"issued not in UTC", "malformed", func(k *kit) fs.FS {
			return k.edit(func(d map[string]any) { d["issued"] = "2026-03-01T12:00:00+02:00" })
		}},
		{"commit is no hash", "malformed", func(k *kit) fs.FS {
			return k.edit(func(d map[string]any) { d["source"].(map[string]any)["commit"] = "main" })
		}},
	}
}

func trustCases() []hostile {
	return []hostile{
		{"other fleet", "wrong-fleet", func(k *kit) fs.FS { return k.edit(func(d map[string]any) { d["name"] = "acme-test" }) }},
		{"other channel", "wrong-channel", func(k *kit) fs.FS { return k.edit(func(d map[string]any) { d["channel"] = "canary" }) }},
		{"epoch ahead of the trust", "wrong-epoch", func(k *kit) fs.FS { return k.edit(func(d map[string]any) { d["epoch"] = 2 }) }},
		{"rolled back", "rollback", func(k *kit) fs.FS { return k.fs(k.fleet.Release(k.t, 4, "alice")) }},
		{"same sequence, other digest", "forked", func(k *kit) fs.FS {
			files := map[string][]byte{"c.yaml": bundlestest.Policy("c")}
			return k.fs(k.fleet.Sign(k.t, files, k.fleet.Doc(k.t, files, 5), "alice"))
		}},
		{"sequence jumps", "sequence-jump", func(k *kit) fs.FS { return k.fs(k.fleet.Release(k.t, 1_000_000, "alice")) }},
		{"below minSequence", "below-minimum", func(k *kit) fs.FS {
			k.extra = "minSequence: 7\n"
			return k.fs(k.good())
		}},
		{"revoked release", "revoked", func(k *kit) fs.FS {
			k.extra = "revoked: {releases: [" + strings.TrimPrefix(bundles.DigestOf(k.good()[bundles.ReleasePath]), "sha256:") + "]}\n"
			return k.fs(k.good())
		}},
		{"revoked key", "revoked", func(k *kit) fs.FS {
			k.extra = "revoked: {keys: [" + k.fleet.Keys["alice"].ID() + "]}\n"
			return k.fs(k.good())
		}},
		{"kind outside the scope", "out-of-scope", func(k *kit) fs.FS {
			k.extra = "scope: {kinds: [KubeArmorPolicy]}\n"
			return k.fs(k.good())
		}},
		{"namespace outside the scope", "out-of-scope", func(k *kit) fs.FS {
			k.extra = "scope: {namespaces: [team-a]}\n"
			return k.fs(k.good())
		}},
		{"other hosts than those of the scope", "out-of-scope", func(k *kit) fs.FS {
			k.extra = "scope: {hosts: [db-*]}\n"
			return k.fs(k.good())
		}},
		{"policies that cannot be read under a scope", "out-of-scope", func(k *kit) fs.FS {
			k.extra = "scope: {kinds: [KubeArmorHostPolicy]}\n"
			files := map[string][]byte{"a.yaml": []byte("kind: [")}
			return k.fs(k.fleet.Sign(k.t, files, k.fleet.Doc(k.t, files, 6), "alice"))
		}},
		{"successor of the trust file that is none", "succession", func(k *kit) fs.FS { return k.with(bundles.TrustFile(2), []byte("version: 2")) }},
		{"successor of the successor", "succession", func(k *kit) fs.FS { return k.with(bundles.TrustFile(7), []byte("version: 7")) }},
		{"trust file of no version", "succession", func(k *kit) fs.FS { return k.with(bundles.TrustDir+"/x.yaml", []byte("version: 2")) }},
		{"history rewritten where ancestry is required", "history-rewritten", func(k *kit) fs.FS {
			k.extra, k.raw.Rewritten = "requireAncestry: true\n", true
			return k.fs(k.good())
		}},
		{"history that nobody knows where ancestry is required", "ancestry-unknown", func(k *kit) fs.FS {
			k.extra, k.raw.AncestryUnknown = "requireAncestry: true\n", errors.New("too far back")
			return k.fs(k.good())
		}},
	}
}

func fileCases() []hostile {
	return []hostile{
		{"path leaves the release", "path", func(k *kit) fs.FS { return k.file("../etc/passwd") }},
		{"path with .. inside", "path", func(k *kit) fs.FS { return k.file("a/../../b") }},
		{"path absolute", "path", func(k *kit) fs.FS { return k.file("/etc/passwd") }},
		{"path not clean", "path", func(k *kit) fs.FS { return k.file("a//b") }},
		{"path empty", "path", func(k *kit) fs.FS { return k.file("") }},
		{"path with a backslash", "path", func(k *kit) fs.FS { return k.file(`a\b`) }},
		{"path with a NUL", "path", func(k *kit) fs.FS { return k.file("a\x00b") }},
		{"path not ASCII", "path", func(k *kit) fs.FS { return k.file("ä.yaml") }},
		{"path too long", "path", func(k *kit) fs.FS { return k.file(strings.Repeat("a", 513)) }},
		{"path too deep", "limits", func(k *kit) fs.FS { return k.file(strings.Repeat("a/", 20) + "a") }},
		{"path into .muster", "path", func(k *kit) fs.FS { return k.file(".muster/trust/9.yaml") }},
		{"path into .GIT", "path", func(k *kit) fs.FS { return k.file("x/.GIT/config") }},
		{"paths equal after case folding", "path", func(k *kit) fs.FS { return k.file("A.yaml", "a.yaml") }},
		{"path doubled", "path", func(k *kit) fs.FS { return k.file("a.yaml", "a.yaml") }},
		{"path both file and directory", "path", func(k *kit) fs.FS { return k.file("a", "a/b") }},
		{"files not sorted", "not-canonical", func(k *kit) fs.FS { return k.file("b", "a") }},
		{"files null", "malformed", func(k *kit) fs.FS { return k.edit(func(d map[string]any) { d["files"] = nil }) }},
		{"file declared too large", "limits", func(k *kit) fs.FS {
			return k.edit(func(d map[string]any) { d["files"].([]any)[0].(map[string]any)["size"] = 1 << 40 })
		}},
		{"file of negative size", "limits", func(k *kit) fs.FS {
			return k.edit(func(d map[string]any) { d["files"].([]any)[0].(map[string]any)["size"] = -1 })
		}},
		{"digest in upper case", "malformed", func(k *kit) fs.FS {
			return k.edit(func(d map[string]any) {
				f := d["files"].([]any)[0].(map[string]any)
				f["sha256"] = strings.ToUpper(f["sha256"].(string))
			})
		}},
		{"too many files", "limits", func(k *kit) fs.FS {
			var paths []string
			for i := range 20_001 {
				paths = append(paths, fmt.Sprintf("f%06d", i))
			}
			return k.file(paths...)
		}},
		{"file missing", "altered", func(k *kit) fs.FS { return k.with("a.yaml", nil) }},
		{"file byte flipped", "altered", func(k *kit) fs.FS {
			data := bytes.Clone(bundlestest.Files()["a.yaml"])
			data[3] ^= 1
			return k.with("a.yaml", data)
		}},
		{"file truncated", "altered", func(k *kit) fs.FS { return k.with("a.yaml", bundlestest.Files()["a.yaml"][:5]) }},
		{"file longer", "altered", func(k *kit) fs.FS { return k.with("a.yaml", append(bundlestest.Files()["a.yaml"], '\n')) }},
		{"file is a directory", "path", func(k *kit) fs.FS {
			return k.onDisk(func(dir string) error {
				p := filepath.Join(dir, "a.yaml")
				return errors.Join(os.Remove(p), os.Mkdir(p, 0o755))
			})
		}},
		{"file is a symlink to the same bytes", "path", func(k *kit) fs.FS {
			return k.onDisk(func(dir string) error {
				p := filepath.Join(dir, "a.yaml")
				return errors.Join(os.Rename(p, p+".real"), os.Symlink("a.yaml.real", p))
			})
		}},
		{"directory is a symlink", "path", func(k *kit) fs.FS {
			return k.onDisk(func(dir string) error {
				p := filepath.Join(dir, "sub")
				return errors.Join(os.Rename(p, p+"2"), os.Symlink("sub2", p))
			})
		}},
		{"file is a pipe", "path", func(k *kit) fs.FS {
			return k.onDisk(func(dir string) error {
				p := filepath.Join(dir, "a.yaml")
				return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o644))
			})
		}},
		{"release.json is a symlink", "path", func(k *kit) fs.FS {
			return k.onDisk(func(dir string) error {
				p := filepath.Join(dir, bundles.ReleasePath)
				return errors.Join(os.Rename(p, p+".real"), os.Symlink("release.json.real", p))
			})
		}},
	}
}

func signatureCases() []hostile {
	return []hostile{
		{"no signature", "unsigned", func(k *kit) fs.FS { return k.with(aliceSig, nil) }},
		{"a stranger's signature", "too-few-signers", func(k *kit) fs.FS {
			return k.with(aliceSig, bundlestest.Bundle(k.t, bundlestest.NewKey(k.t), k.good()[bundles.ReleasePath]))
		}},
		{"one of two signers", "too-few-signers", func(k *kit) fs.FS {
			k.audit, k.enforce = 2, 2
			return k.fs(k.good())
		}},
		{"the same signer twice", "too-few-signers", func(k *kit) fs.FS {
			k.audit, k.enforce = 2, 2
			files := k.good()
			files[bundles.SignatureFile("bob")] = bundlestest.Bundle(k.t, k.fleet.Keys["alice"], files[bundles.ReleasePath])
			return k.fs(files)
		}},
		{"signature of another release", "altered", func(k *kit) fs.FS {
			return k.with(aliceSig, k.fleet.Release(k.t, 5, "alice")[aliceSig])
		}},
		{"signature of another release with the digest of this one", "too-few-signers", func(k *kit) fs.FS {
			old := k.fleet.Release(k.t, 5, "alice")
			var b map[string]any
			if err := json.Unmarshal(old[aliceSig], &b); err != nil {
				k.t.Fatal(err)
			}
			sig := b["messageSignature"].(map[string]any)["signature"]
			return k.with(aliceSig, k.bundleWith(func(b map[string]any) { b["messageSignature"].(map[string]any)["signature"] = sig }))
		}},
		{"signature byte flipped", "too-few-signers", func(k *kit) fs.FS {
			return k.with(aliceSig, k.bundleWith(func(b map[string]any) {
				m := b["messageSignature"].(map[string]any)
				raw, _ := base64.StdEncoding.DecodeString(m["signature"].(string))
				raw[len(raw)-1] ^= 1
				m["signature"] = base64.StdEncoding.EncodeToString(raw)
			}))
		}},
		{"signature empty", "too-few-signers", func(k *kit) fs.FS {
			return k.with(aliceSig, k.bundleWith(func(b map[string]any) { b["messageSignature"].(map[string]any)["signature"] = "" }))
		}},
		{"signature file empty", "too-few-signers", func(k *kit) fs.FS { return k.with(aliceSig, []byte{}) }},
		{"signature file is garbage", "too-few-signers", func(k *kit) fs.FS { return k.with(aliceSig, []byte("\x00\x01garbage")) }},
		{"signature file too large", "limits", func(k *kit) fs.FS { return k.with(aliceSig, make([]byte, 65<<10)) }},
		{"too many signature files", "limits", func(k *kit) fs.FS {
			files := k.good()
			for i := range 70 {
				files[bundles.SignatureFile(fmt.Sprintf("x%d", i))] = []byte("{}")
			}
			return k.fs(files)
		}},
		{"legacy cosign bundle", "legacy-bundle", func(k *kit) fs.FS {
			return k.with(aliceSig, []byte(`{"base64Signature":"MEUCIQ==","cert":"","rekorBundle":null}`))
		}},
		{"DSSE envelope", "dsse", func(k *kit) fs.FS {
			return k.with(aliceSig, k.bundleWith(func(b map[string]any) {
				delete(b, "messageSignature")
				b["dsseEnvelope"] = map[string]any{
					"payload": "e30=", "payloadType": "application/vnd.in-toto+json",
					"signatures": []any{map[string]any{"sig": "MEUCIQ=="}},
				}
			}))
		}},
		{"DSSE envelope beside a message signature", "dsse", func(k *kit) fs.FS {
			return k.with(aliceSig, k.bundleWith(func(b map[string]any) { b["dsseEnvelope"] = map[string]any{} }))
		}},
		{"bundle of version 0.2", "too-few-signers", func(k *kit) fs.FS {
			return k.with(aliceSig, k.bundleWith(func(b map[string]any) {
				b["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2"
			}))
		}},
		{"bundle with an unknown field", "too-few-signers", func(k *kit) fs.FS {
			return k.with(aliceSig, k.bundleWith(func(b map[string]any) { b["surprise"] = true }))
		}},
		{"bundle with a certificate that nobody asked for", "too-few-signers", func(k *kit) fs.FS {
			return k.with(aliceSig, k.bundleWith(func(b map[string]any) {
				b["verificationMaterial"] = map[string]any{"certificate": map[string]any{"rawBytes": "MIIB"}}
			}))
		}},
		{"signatures is a file", "path", func(k *kit) fs.FS {
			files := k.good()
			delete(files, aliceSig)
			files[bundles.SignaturesDir] = []byte("x")
			return k.fs(files)
		}},
		{"signature is a symlink", "path", func(k *kit) fs.FS {
			return k.onDisk(func(dir string) error {
				p := filepath.Join(dir, aliceSig)
				return errors.Join(os.Rename(p, p+".real"), os.Symlink("alice.sigstore.json.real", p))
			})
		}},
	}
}

// TestHostileReleases gives each broken or hostile release to a host that holds release 5: it must be refused by
// name, must change nothing that the host remembers, and release 5 must still load from the cache.
func TestHostileReleases(t *testing.T) {
	t.Parallel()
	var all []hostile
	for _, group := range [][]hostile{documentCases(), trustCases(), fileCases(), signatureCases()} {
		all = append(all, group...)
	}
	t.Logf("%d hostile or broken releases", len(all))
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t)
			held := k.fleet.Verified(t, k.fleet.Trust(t, 1, 1, ""), 5, "alice", "bob")
			cache := bundles.NewCache(t.TempDir())
			if err := cache.Store(held); err != nil {
				t.Fatal(err)
			}
			k.seen = held.Advance(bundles.Seen{}, bundlestest.Now())
			k.raw.FS = c.make(k)
			trust := k.fleet.Trust(t, k.audit, k.enforce, k.extra)
			v, err := bundles.Verify(&k.raw, trust, k.seen, bundlestest.Now())
			if v != nil || bundles.RefusalName(err) != c.want {
				t.Fatalf("got %v (named %q), want the refusal %q", err, bundles.RefusalName(err), c.want)
			}
			t.Logf("%v", err)
			still, problems, err := cache.Load(bundles.LevelEnforce, k.fleet.Trust(t, 1, 1, ""), k.seen, bundlestest.Now())
			if err != nil || len(problems) != 0 || still.Digest() != held.Digest() {
				t.Fatalf("the last good release is gone: %v %v", problems, err)
			}
		})
	}
}

// TestGoodRelease shows that the table's releases are refused for their fault and not for another.
func TestGoodRelease(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	trust := k.fleet.Trust(t, 1, 2, "")
	for _, fsys := range []fs.FS{k.fs(k.good()), k.onDisk(func(string) error { return nil }), k.text(`"epoch":1`, `"epoch":1`), k.edit(func(map[string]any) {}), k.file("a", "b/c")} {
		_, err := bundles.Verify(&bundles.Raw{FS: fsys}, trust, bundles.Seen{}, bundlestest.Now())
		if err != nil && !errors.Is(err, bundles.ErrAltered) { // file() has no blobs: only that is its fault
			t.Fatal(err)
		}
	}
	v := k.fleet.Verified(t, trust, 6, "alice")
	if v.Level() != bundles.LevelAudit {
		t.Fatalf("one of two signers gives level %s", v.Level())
	}
}
