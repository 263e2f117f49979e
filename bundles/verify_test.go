// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// TestLevels walks one host through a release that is signed twice, and through marks of both levels.
func TestLevels(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice", "bob", "carol")
	trust := f.Trust(t, 1, 2, "")
	verify := func(files map[string][]byte, seen bundles.Seen) (*bundles.Verified, error) {
		return bundles.Verify(bundlestest.Raw(files), trust, seen, bundlestest.Now())
	}
	var seen bundles.Seen
	once, err := verify(f.Release(t, 5, "alice"), seen)
	if err != nil || once.Level() != bundles.LevelAudit {
		t.Fatal(once, err)
	}
	seen = once.Advance(seen, bundlestest.Now())
	if seen.Audit.Sequence != 5 || seen.Enforce.Sequence != 0 {
		t.Fatalf("an audit release raised the enforce mark: %+v", seen)
	}
	twice, err := verify(f.Release(t, 5, "alice", "bob"), seen)
	if err != nil || twice.Level() != bundles.LevelEnforce || twice.Digest() != once.Digest() {
		t.Fatalf("the same digest with more signatures: %v", err)
	}
	if got := strings.Join(twice.Signers(), ","); got != "alice,bob" {
		t.Fatalf("signers %s", got)
	}
	// One signer alone may raise the audit mark as far as they like; releases with two are not held up by it.
	far, err := verify(f.Release(t, 900, "carol"), seen)
	if err != nil {
		t.Fatal(err)
	}
	seen = far.Advance(seen, bundlestest.Now())
	if _, err := verify(f.Release(t, 6, "alice", "bob"), seen); err != nil {
		t.Fatalf("a release below another level's mark: %v", err)
	}
	if _, err := verify(f.Release(t, 6, "alice"), seen); !errors.Is(err, bundles.ErrRollback) {
		t.Fatalf("an audit release below the audit mark: %v", err)
	}
	seen = twice.Advance(bundles.Seen{}, bundlestest.Now())
	if _, err := verify(f.Release(t, 4, "alice"), seen); !errors.Is(err, bundles.ErrRollback) {
		t.Fatalf("an audit release below the enforce mark: %v", err)
	}
	files := map[string][]byte{"c.yaml": bundlestest.Policy("c")}
	other := f.Sign(t, files, f.Doc(t, files, 900), "alice", "bob")
	v, err := verify(other, far.Advance(bundles.Seen{}, bundlestest.Now()))
	if err != nil || len(v.Conditions()) != 1 || v.Conditions()[0].Type != bundles.ConditionForked {
		t.Fatalf("an audit release's number with another digest: %v", err)
	}
}

// TestJunkSignatures: what does not count does not hinder either.
func TestJunkSignatures(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	files := f.Release(t, 1, "alice")
	files[bundles.SignatureFile("0")] = []byte(`{"base64Signature":""}`)
	files[bundles.SignatureFile("zz")] = []byte("garbage")
	files["unlisted.yaml"] = []byte("not part of the release")
	v, err := bundles.Verify(bundlestest.Raw(files), f.Trust(t, 1, 1, ""), bundles.Seen{}, bundlestest.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat(v.FS(), "unlisted.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("an unlisted file exists: %v", err)
	}
	if err := fstest.TestFS(v.FS(), "a.yaml", "sub/b.yaml"); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil || !strings.Contains(string(text), `"signers":["alice"]`) {
		t.Fatal(string(text), err)
	}
}

// TestVerifyIsOnce: what is verified stays what it was, whatever happens to the source afterwards.
func TestVerifyIsOnce(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	files := f.Release(t, 1, "alice")
	v, err := bundles.Verify(bundlestest.Raw(files), f.Trust(t, 1, 1, ""), bundles.Seen{}, bundlestest.Now())
	if err != nil {
		t.Fatal(err)
	}
	files["a.yaml"] = []byte("changed after the check")
	v.Release().Files[0].Path = "x"
	got, err := fs.ReadFile(v.FS(), "a.yaml")
	if err != nil || string(got) != string(bundlestest.Policy("a")) || v.Release().Files[0].Path != "a.yaml" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestFreshness(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	clock := bundlestest.NewKey(t)
	trust := f.Trust(t, 1, 1, "freshness:\n  maxAge: 26h\n  signers:\n  "+strings.ReplaceAll(bundlestest.Signer(t, "ci-clock", clock), "\n", "\n  "))
	now := bundlestest.Now()
	release := f.Release(t, 5, "alice")
	vouch := func(doc []byte, seq int64, issued time.Time, valid time.Duration, k *bundles.KeySigner) map[string][]byte {
		files := f.Release(t, 5, "alice")
		files[bundles.ReleasePath], files[bundles.SignatureFile("alice")] = release[bundles.ReleasePath], release[bundles.SignatureFile("alice")]
		fresh, err := bundles.BuildFresh(doc, seq, issued, valid)
		if err != nil {
			t.Fatal(err)
		}
		files[bundles.FreshPath], files[bundles.FreshSigPath] = fresh, bundlestest.Bundle(t, k, fresh)
		return files
	}
	doc := release[bundles.ReleasePath]
	torn := vouch(doc, 5, now, time.Hour, clock)
	torn[bundles.FreshPath] = torn[bundles.FreshPath][:20]
	for _, c := range []struct {
		name  string
		files map[string][]byte
		floor time.Time
		stale string
	}{
		{"fresh", vouch(doc, 5, now, 48*time.Hour, clock), time.Time{}, ""},
		{"missing", release, time.Time{}, "there is no"},
		{"expired", vouch(doc, 5, now.Add(-2*time.Hour), time.Hour, clock), time.Time{}, "expired"},
		{"too old", vouch(doc, 5, now.Add(-27*time.Hour), 99*time.Hour, clock), time.Time{}, "older than"},
		{"of another release", vouch([]byte("x"), 5, now, time.Hour, clock), time.Time{}, "not for this release"},
		{"of another sequence", vouch(doc, 4, now, time.Hour, clock), time.Time{}, "not for this release"},
		{"signed by a release signer", vouch(doc, 5, now, time.Hour, f.Keys["alice"]), time.Time{}, "no freshness key"},
		{"torn", torn, time.Time{}, "no freshness key"},
		{"expired by the clock's floor", vouch(doc, 5, now, time.Hour, clock), now.Add(2 * time.Hour), "expired"},
	} {
		v, err := bundles.Verify(bundlestest.Raw(c.files), trust, bundles.Seen{Floor: c.floor}, now)
		if err != nil {
			t.Fatalf("%s: staleness refuses: %v", c.name, err)
		}
		var got string
		for _, cond := range v.Conditions() {
			if cond.Type == bundles.ConditionStale {
				got = cond.Message
			}
		}
		if (c.stale == "") != (got == "") || !strings.Contains(got, c.stale) {
			t.Errorf("%s: stale %q, want %q", c.name, got, c.stale)
		}
	}
}

// TestAgain: a source that stands still (a freeze) is noticed by looking at the held release again.
func TestAgain(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	clock := bundlestest.NewKey(t)
	extra := "freshness:\n  maxAge: 26h\n  signers:\n  " + strings.ReplaceAll(bundlestest.Signer(t, "ci-clock", clock), "\n", "\n  ")
	trust := f.Trust(t, 1, 1, extra)
	files := f.Release(t, 5, "alice")
	fresh, err := bundles.BuildFresh(files[bundles.ReleasePath], 5, bundlestest.Now(), 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files[bundles.FreshPath], files[bundles.FreshSigPath] = fresh, bundlestest.Bundle(t, clock, fresh)
	raw := bundlestest.Raw(files)
	raw.Rewritten = true
	v, err := bundles.Verify(raw, trust, bundles.Seen{}, bundlestest.Now())
	if err != nil || len(v.Conditions()) != 1 {
		t.Fatalf("%v %v", v.Conditions(), err)
	}
	seen := v.Advance(bundles.Seen{}, bundlestest.Now())
	again, err := v.Again(trust, seen, bundlestest.Now().Add(27*time.Hour))
	if err != nil || len(again.Conditions()) != 2 || again.Revision() != v.Revision() || again.Digest() != v.Digest() {
		t.Fatalf("%v %v", again.Conditions(), err)
	}
	revoked := f.Trust(t, 1, 1, "revoked: {releases: ["+strings.TrimPrefix(v.Digest(), "sha256:")+"]}\n"+extra)
	if _, err := v.Again(revoked, seen, bundlestest.Now()); !errors.Is(err, bundles.ErrRevoked) {
		t.Fatal(err)
	}
}

func TestClockConditions(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	trust := f.Trust(t, 1, 1, "")
	types := func(seen bundles.Seen, now time.Time) string {
		v, err := bundles.Verify(bundlestest.Raw(f.Release(t, 5, "alice")), trust, seen, now)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, c := range v.Conditions() {
			out = append(out, c.Type)
		}
		return strings.Join(out, ",")
	}
	now := bundlestest.Now()
	for want, got := range map[string]string{
		"":               types(bundles.Seen{Clock: now}, now),
		"ClockBackwards": types(bundles.Seen{Clock: now.Add(time.Hour)}, now),
		"FutureIssued":   types(bundles.Seen{}, bundlestest.Issued().Add(-time.Hour)),
	} {
		if got != want {
			t.Errorf("conditions %q, want %q", got, want)
		}
	}
	v := f.Verified(t, trust, 5, "alice")
	seen := v.Advance(bundles.Seen{Floor: now.Add(time.Hour)}, now)
	if !seen.Floor.Equal(now.Add(time.Hour)) {
		t.Fatalf("the floor went down to %s", seen.Floor)
	}
	// One signer of two says when the release was made: that is no clock.
	two := bundlestest.New(t, "alice", "bob")
	early := bundlestest.Issued().Add(-time.Hour)
	for want, signers := range map[time.Time][]string{early: {"alice"}, bundlestest.Issued(): {"alice", "bob"}} {
		v := two.Verified(t, two.Trust(t, 1, 2, ""), 5, signers...)
		if got := v.Advance(bundles.Seen{}, early).Floor; !got.Equal(want) {
			t.Errorf("signed by %v: the floor is %s, want %s", signers, got, want)
		}
	}
}

func publicPEM(t *testing.T, pub any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// keyYAML indents a PEM as the key of a signer.
func keyYAML(name, text string) string {
	return fmt.Sprintf("  - name: %s\n    key: |\n      %s\n", name, strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n      "))
}

// TestTrustErrors: each fault of a trust file is an error that names it.
func TestTrustErrors(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice", "bob")
	good := f.TrustYAML(t, 1, 2, "")
	if _, err := bundles.LoadTrust([]byte(good)); err != nil {
		t.Fatal(err)
	}
	alice := bundlestest.Signer(t, "alice", f.Keys["alice"])
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	weak, _ := rsa.GenerateKey(rand.Reader, 2048)
	strong, _ := rsa.GenerateKey(rand.Reader, 3072)
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	nobody, some := bundlestest.NewSigstore(t), bundlestest.NewSigstore(t, bundlestest.WithLog)
	keyless := "  - {name: ci, keyless: {issuer: %q, subject: %q, trustedRoot: {}}}\n"
	edit := func(old, replacement string) string { return strings.Replace(good, old, replacement, 1) }
	for _, c := range []struct{ name, text, kind, says string }{
		{"empty", "", "trust", "empty"},
		{"not YAML", "a: [", "trust", "yaml"},
		{"a list", "- a\n", "trust", "1:1: a mapping is wanted"},
		{"two documents", good + "---\nfleet: x\n", "trust", "more than one document"},
		{"unknown field", good + "typo: 1\n", "trust", `unknown field "typo"`},
		{"unknown nested field", edit("{audit: 1,", "{audt: 1,"), "trust", `5:13: unknown field "audt"`},
		{"field twice", good + "fleet: other\n", "trust", "twice"},
		{"alias", edit("fleet: acme-prod", "fleet: &a acme-prod") + "minSequence: *a\n", "trust", "anchors"},
		{"explicit tag", edit("version: 1", "version: !!str 1"), "trust", "tags"},
		{"null", edit("fleet: acme-prod", "fleet:"), "trust", "the value is empty"},
		{"fleet missing", edit("fleet: acme-prod\n", ""), "trust", "fleet"},
		{"fleet a pattern", edit("acme-prod", `"*"`), "trust", "fleet"},
		{"channel with a slash", edit("channel: stable", "channel: a/b"), "trust", "channel"},
		{"version zero", edit("version: 1", "version: 0"), "trust", "version"},
		{"epoch zero", edit("epoch: 1", "epoch: 0"), "trust", "epoch"},
		{"minSequence negative", good + "minSequence: -1\n", "trust", "minSequence"},
		{"threshold zero", edit("audit: 1", "audit: 0"), "trust", "at least 1"},
		{"threshold missing", edit("threshold: {audit: 1, enforce: 2}\n", ""), "trust", "at least 1"},
		{"audit above enforce", edit("audit: 1, enforce: 2", "audit: 2, enforce: 1"), "trust", "above"},
		{"threshold above signers", edit("enforce: 2", "enforce: 3"), "trust", "above the number"},
		{"no signers", good[:strings.Index(good, "signers:")] + "signers: []\n", "trust", "no signers"},
		{"name twice", good + strings.Replace(bundlestest.Signer(t, "Alice", bundlestest.NewKey(t)), "", "", 1), "trust", "used twice"},
		{"key twice", good + strings.Replace(alice, "alice", "eve", 1), "trust", "same key"},
		{"name empty", good + strings.Replace(bundlestest.Signer(t, "x", bundlestest.NewKey(t)), "name: x", `name: ""`, 1), "trust", "plain name"},
		{"key empty", good + "  - {name: eve, key: \"\"}\n", "trust", "empty"},
		{"key missing", good + "  - {name: eve}\n", "trust", "empty"},
		{"key not PEM", good + "  - {name: eve, key: AAAA}\n", "trust", "not PEM"},
		{"key private", good + keyYAML("eve", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("x")}))), "trust", "not a public key"},
		{"two keys in one", good + keyYAML("eve", publicPEM(t, &strong.PublicKey)+publicPEM(t, &strong.PublicKey)), "trust", "more than one"},
		{"P-384", good + keyYAML("eve", publicPEM(t, &p384.PublicKey)), "trust", "P-384"},
		{"RSA 2048", good + keyYAML("eve", publicPEM(t, &weak.PublicKey)), "trust", "2048"},
		{"Ed25519", good + keyYAML("eve", publicPEM(t, ed)), "trust", "Ed25519"},
		{"keyless", good + fmt.Sprintf(keyless, "https://issuer.example", "a@example.com"), "trust", "trustedRoot"},
		{"keyless empty issuer", good + fmt.Sprintf(keyless, "", "a@example.com"), "trust", "issuer must be exact"},
		{"keyless pattern subject", good + fmt.Sprintf(keyless, "https://issuer.example", ".*"), "trust", "subject must be exact"},
		{"key and keyless", good + "  - {name: ci, key: x, keyless: {issuer: a, subject: b}}\n", "trust", "both"},
		{"keyless without a root", good + "  - {name: ci, keyless: {issuer: a, subject: b}}\n", "trust", "trustedRoot"},
		{"keyless, nobody to say when", good + nobody.Keyless(t, "ci", ciIssuer, ciSubject), "trust", "neither a log nor a timestamp authority"},
		{"keyless twice", good + some.Keyless(t, "ci", ciIssuer, ciSubject) + some.Keyless(t, "ci2", ciIssuer, ciSubject), "trust", "same key or identity"},
		{"keyless collector", good + "collectors:\n" + some.Keyless(t, "roll", ciIssuer, ciSubject), "unsupported", "keys only"},
		{"alias in a trusted root", good + "  - {name: ci, keyless: {issuer: a, subject: b, trustedRoot: {x: &a 1, y: *a}}}\n", "trust", "aliases"},
		{"freshness without signers", good + "freshness: {maxAge: 1h}\n", "trust", "freshness"},
		{"freshness without age", good + "freshness:\n  signers:\n" + alice, "trust", "maxAge"},
		{"freshness age is no duration", good + "freshness: {maxAge: soon}\n", "trust", "duration"},
		{"revoked is no digest", good + "revoked: {keys: [abc]}\n", "trust", "sha256"},
		{"scope of hosts by another form", good + "scope: {hosts: {names: [a]}}\n", "trust", "a list is wanted"},
		{"scope of every host", good + "scope: {hosts: ['*']}\n", "trust", "scope.hosts"},
		{"scope of hosts with a pattern inside", good + "scope: {hosts: [a*b]}\n", "trust", "scope.hosts"},
		{"scope pattern", good + "scope: {namespaces: [\"*\"]}\n", "trust", "exact"},
	} {
		_, err := bundles.LoadTrust([]byte(c.text))
		if bundles.RefusalName(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (named %q), want %q saying %q", c.name, err, bundles.RefusalName(err), c.kind, c.says)
		}
	}
	if _, err := bundles.LoadTrust([]byte(good + keyYAML("rsa", publicPEM(t, &strong.PublicKey)))); err != nil {
		t.Errorf("RSA 3072: %v", err)
	}
}

// TestHandMadeTrust: Verify does not take a Trust that LoadTrust would not have made.
func TestHandMadeTrust(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	trust := f.Trust(t, 1, 1, "")
	trust.Threshold.Audit, trust.Threshold.Enforce = 0, 0
	files := f.Release(t, 1)
	files[bundles.SignatureFile("x")] = []byte("{}")
	if _, err := bundles.Verify(bundlestest.Raw(files), trust, bundles.Seen{}, bundlestest.Now()); bundles.RefusalName(err) != "trust" {
		t.Fatalf("a threshold of zero: %v", err)
	}
	if _, err := bundles.Verify(nil, nil, bundles.Seen{}, bundlestest.Now()); bundles.RefusalName(err) != "trust" {
		t.Fatalf("nothing at all: %v", err)
	}
}

// TestRSASigner signs and verifies with RSA, which cosign makes and muster takes.
func TestRSASigner(t *testing.T) {
	t.Parallel()
	priv, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	k, err := bundles.SignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	f := &bundlestest.Fleet{Keys: map[string]*bundles.KeySigner{"rsa": k}}
	if v := f.Verified(t, f.Trust(t, 1, 1, ""), 1, "rsa"); v.Level() != bundles.LevelEnforce {
		t.Fatal(v.Level())
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	pair, err := bundles.GenerateKey([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := bundles.LoadKey(pair.Private, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := bundles.PublicKeyID(pair.Public); err != nil || id != k.ID() || k.CryptoSigner() == nil {
		t.Fatal(id, err)
	}
	if _, err := bundles.LoadKey(pair.Private, []byte("wrong")); !errors.Is(err, bundles.ErrWrongPassword) {
		t.Fatal(err)
	}
	if _, err := bundles.LoadKey([]byte("x"), nil); bundles.RefusalName(err) != "bad-signature" {
		t.Fatal(err)
	}
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	if _, err := bundles.PublicKeyID([]byte(publicPEM(t, ed))); !errors.Is(err, bundles.ErrWeakKey) {
		t.Fatal(err)
	}
}
