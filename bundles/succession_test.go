// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// TestSuccession gives a host with version 1, where two of three signers must agree, one successor each.
func TestSuccession(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice", "bob", "carol", "dave", "mallory")
	first := bundlestest.First(2, "alice", "bob", "carol")
	host := bundlestest.Load(t, f.YAML(t, first))
	for _, c := range []struct {
		name   string
		change func(v *bundlestest.TrustFile)
		by     []string
		want   string
	}{
		{"same signers", nil, []string{"alice", "bob"}, ""},
		{"a signer is replaced", func(v *bundlestest.TrustFile) { v.Signers = []string{"alice", "bob", "dave"} }, []string{"alice", "bob"}, ""},
		{"both sides of a full change", func(v *bundlestest.TrustFile) { v.Signers = []string{"dave", "mallory"} }, []string{"alice", "bob", "dave", "mallory"}, ""},
		{"a stolen key is revoked by the others", func(v *bundlestest.TrustFile) {
			v.Signers = []string{"alice", "bob", "dave"}
			v.Extra, v.Epoch = "revoked: {keys: ["+f.Keys["carol"].ID()+"]}\n", 2
		}, []string{"alice", "bob"}, ""},
		{"the scope narrows", func(v *bundlestest.TrustFile) { v.Extra = "scope: {kinds: [KubeArmorHostPolicy]}\n" }, []string{"alice", "bob"}, ""},
		{"one old signer alone", nil, []string{"alice"}, "succession"},
		{"nobody", nil, nil, "succession"},
		{"one signer twice", nil, []string{"alice", "alice"}, "succession"},
		{"strangers", nil, []string{"dave", "mallory"}, "succession"},
		{"only the old side", func(v *bundlestest.TrustFile) { v.Signers = []string{"dave", "mallory"} }, []string{"alice", "bob"}, "succession"},
		{"only the new side", func(v *bundlestest.TrustFile) { v.Signers = []string{"dave", "mallory"} }, []string{"dave", "mallory"}, "succession"},
		{"a signer that the new side revokes", func(v *bundlestest.TrustFile) {
			v.Extra = "revoked: {keys: [" + f.Keys["bob"].ID() + "]}\n"
		}, []string{"alice", "bob"}, "succession"},
		{"another fleet", func(v *bundlestest.TrustFile) { v.Fleet = "acme-test" }, []string{"alice", "bob"}, "succession"},
		{"another channel", func(v *bundlestest.TrustFile) { v.Channel = "canary" }, []string{"alice", "bob"}, "succession"},
		{"an older epoch", func(v *bundlestest.TrustFile) { v.Epoch = 0 }, []string{"alice", "bob"}, "succession"},
		{"nobody may follow it", func(v *bundlestest.TrustFile) { v.Agree = 0 }, []string{"alice", "bob"}, "succession"},
		{"more than there are must agree", func(v *bundlestest.TrustFile) { v.Agree = 4 }, []string{"alice", "bob"}, "succession"},
		{"an unknown field", func(v *bundlestest.TrustFile) { v.Extra = "surprise: 1\n" }, []string{"alice", "bob"}, "succession"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := first
			v.Version = 2
			if c.change != nil {
				c.change(&v)
			}
			epoch := max(v.Epoch, 1)
			files := f.ReleaseIn(t, epoch, 6, bundlestest.Files(), v.Signers...)
			f.Succession(t, files, v, c.by...)
			got, err := bundles.Verify(bundlestest.Raw(files), host, bundles.Seen{}, bundlestest.Now())
			if name := bundles.RefusalName(err); name != c.want {
				t.Fatalf("%q (%v), wanted %q", name, err, c.want)
			}
			if err == nil && got.Advance(bundles.Seen{}, bundlestest.Now()).Trust != 2 {
				t.Fatal("the version is not remembered")
			}
		})
	}
}

// TestSuccessionScope: a team cannot widen what its host gave it, not even with all its keys.
func TestSuccessionScope(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice")
	const shops, webs = "{kinds: [KubeArmorPolicy], namespaces: [shop, cart]}", "{hosts: [web-*, db-1]}"
	for _, c := range []struct{ before, after, want string }{
		{shops, "{kinds: [KubeArmorPolicy], namespaces: [shop]}", ""},
		{shops, "{kinds: [KubeArmorPolicy], namespaces: [shop], hosts: [web-1]}", ""},
		{shops, "{}", "succession"},
		{shops, "{kinds: [KubeArmorPolicy]}", "succession"},
		{shops, "{namespaces: [shop]}", "succession"},
		{shops, "{kinds: [KubeArmorPolicy], namespaces: [shop, kube-system]}", "succession"},
		{shops, "{kinds: [KubeArmorPolicy, KubeArmorHostPolicy], namespaces: [shop]}", "succession"},
		{webs, "{hosts: [web-1*, db-1, web-20]}", ""},
		{webs, "{}", "succession"},
		{webs, "{hosts: [w*]}", "succession"},
		{webs, "{hosts: [db-1*]}", "succession"},
		{webs, "{hosts: [web-1, db-2]}", "succession"},
	} {
		first := bundlestest.First(1, "alice")
		first.Extra = "scope: " + c.before + "\n"
		host := bundlestest.Load(t, f.YAML(t, first))
		next := first
		next.Version, next.Extra = 2, "scope: "+c.after+"\n"
		files := map[string][]byte{}
		f.Succession(t, files, next, "alice")
		_, _, err := bundles.Succeed(bundles.NewMemFS(files), host)
		if got := bundles.RefusalName(err); got != c.want {
			t.Errorf("%s after %s: %q (%v), wanted %q", c.after, c.before, got, err, c.want)
		}
	}
}

// chain is a fleet whose one signer is replaced at each version: k1, then k2, and so on.
func chain(t *testing.T, versions int64) (f *bundlestest.Fleet, files map[string][]byte, trusts []*bundles.Trust) {
	t.Helper()
	f = &bundlestest.Fleet{Keys: map[string]*bundles.KeySigner{}}
	files = map[string][]byte{}
	for n := int64(1); n <= versions; n++ {
		name := fmt.Sprintf("k%d", n)
		f.Keys[name] = bundlestest.NewKey(t)
		v := bundlestest.First(1, name)
		v.Version = n
		by := []string{name}
		if n > 1 {
			by = append(by, fmt.Sprintf("k%d", n-1))
		}
		f.Succession(t, files, v, by...)
		trusts = append(trusts, bundlestest.Load(t, f.YAML(t, v)))
	}
	return f, files, trusts
}

// TestSleeper: a host that slept through five successions catches up one at a time, keeps the way on disk, and a
// break anywhere on it stops it by name.
func TestSleeper(t *testing.T) {
	t.Parallel()
	f, files, trusts := chain(t, 6)
	maps.Copy(files, f.ReleaseIn(t, 1, 9, bundlestest.Files(), "k6"))
	v, err := bundles.Verify(bundlestest.Raw(files), trusts[0], bundles.Seen{}, bundlestest.Now())
	if err != nil || v.Level() != bundles.LevelEnforce {
		t.Fatal(err)
	}
	next, links, err := bundles.Succeed(bundles.NewMemFS(files), trusts[0])
	if err != nil || next.Version != 6 || len(links) != 5 {
		t.Fatalf("%v %d links", err, len(links))
	}
	for n := int64(2); n <= 6; n++ {
		for _, path := range []string{bundles.TrustFile(n), bundles.TrustSignatureFile(n, fmt.Sprintf("k%d", n-1)), bundles.TrustSignatureFile(n, fmt.Sprintf("k%d", n))} {
			if n == 6 && path == bundles.TrustFile(6) {
				continue // then version 5 is simply the newest
			}
			broken := with(files, path, nil)
			if _, _, err := bundles.Succeed(bundles.NewMemFS(broken), trusts[0]); !errors.Is(err, bundles.ErrSuccession) {
				t.Errorf("without %s: %v", path, err)
			}
			broken = with(files, path, append(slices.Clone(files[path]), '\n'))
			if _, _, err := bundles.Succeed(bundles.NewMemFS(broken), trusts[0]); path == bundles.TrustFile(n) && !errors.Is(err, bundles.ErrSuccession) {
				t.Errorf("%s altered: %v", path, err)
			}
		}
	}
	store := bundles.NewTrustStore(t.TempDir())
	if err := store.Save(links); err != nil {
		t.Fatal(err)
	}
	again, kept, err := store.Load(trusts[0])
	if err != nil || again.Digest() != next.Digest() || len(kept) != 5 {
		t.Fatalf("%v, %d links", err, len(kept))
	}
	if again, kept, err = store.Load(trusts[3]); err != nil || again.Version != 6 || len(kept) != 2 {
		t.Fatalf("a newer pinned file: %v, %d links", err, len(kept))
	}
	if again, _, err = store.Load(bundlestest.Load(t, f.YAML(t, bundlestest.First(1, "k6")))); err == nil || again.Version != 1 {
		t.Fatalf("links of another trust: %v", err)
	}
}

// TestTrustStoreTorn cuts the kept links at every few bytes: the pinned trust is what remains, with a named error.
func TestTrustStoreTorn(t *testing.T) {
	t.Parallel()
	_, files, trusts := chain(t, 3)
	_, links, err := bundles.Succeed(bundles.NewMemFS(files), trusts[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	store := bundles.NewTrustStore(dir)
	if err := store.Save(links); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "trust")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(whole); n += 13 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _, err := store.Load(trusts[0]); !errors.Is(err, bundles.ErrTorn) || got.Version != 1 {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	// A host whose links are lost must not go by the older trust: it was in force once and may name a stolen key.
	seen := bundles.Seen{Trust: 3}
	if _, err := bundles.Verify(bundlestest.Raw(map[string][]byte{}), trusts[0], seen, bundlestest.Now()); bundles.RefusalName(err) != "trust-rollback" {
		t.Fatal(err)
	}
}

// TestHeldAcrossEpochs: what is held stays usable after a trust file raised the epoch, until something newer comes.
func TestHeldAcrossEpochs(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice", "bob")
	old := bundlestest.Load(t, f.YAML(t, bundlestest.First(1, "alice", "bob")))
	held, err := bundles.Verify(bundlestest.Raw(f.ReleaseIn(t, 1, 5, bundlestest.Files(), "alice", "bob")), old, bundles.Seen{}, bundlestest.Now())
	if err != nil {
		t.Fatal(err)
	}
	cache := bundles.NewCache(t.TempDir())
	if err := cache.Store(held); err != nil {
		t.Fatal(err)
	}
	next := bundlestest.First(1, "alice", "bob")
	next.Version, next.Epoch, next.Extra = 2, 2, "revoked: {keys: ["+f.Keys["bob"].ID()+"]}\n"
	trust := bundlestest.Load(t, f.YAML(t, next))
	if v, _, err := cache.Load(bundles.LevelEnforce, trust, bundles.Seen{}, bundlestest.Now()); err != nil || v == nil {
		t.Fatalf("nothing to hold on to: %v", err)
	}
	if _, err := held.Again(trust, bundles.Seen{}, bundlestest.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := bundles.Verify(bundlestest.Raw(f.ReleaseIn(t, 1, 6, bundlestest.Files(), "alice")), trust, bundles.Seen{}, bundlestest.Now()); !errors.Is(err, bundles.ErrRollback) {
		t.Fatalf("a new release of the old epoch: %v", err)
	}
	next.Extra = "revoked: {releases: [" + held.Digest() + "]}\n"
	if v, problems, err := cache.Load(bundles.LevelEnforce, bundlestest.Load(t, f.YAML(t, next)), bundles.Seen{}, bundlestest.Now()); err != nil || v != nil || len(problems) != 1 {
		t.Fatalf("a revoked release is used: %v %v", problems, err)
	}
}

// TestHeldAfterRotation: what is held stays when all who signed it were replaced, and is reported; what one of the
// versions since then revoked does not, nor what nobody of any version signed.
func TestHeldAfterRotation(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice", "bob", "carol")
	first := bundlestest.First(1, "alice")
	pinned := bundlestest.Load(t, f.YAML(t, first))
	held := f.Verified(t, pinned, 5, "alice")
	cache := bundles.NewCache(t.TempDir())
	if err := cache.Store(held); err != nil {
		t.Fatal(err)
	}
	follow := func(revoked ...string) *bundles.Trust {
		t.Helper()
		trust := pinned
		for i, extra := range revoked {
			v := bundlestest.First(1, "bob", "carol")
			v.Version, v.Extra = int64(i+2), extra
			files := map[string][]byte{}
			f.Succession(t, files, v, "alice", "bob", "carol")
			next, links, err := bundles.Succeed(bundles.NewMemFS(files), trust)
			if err != nil || len(links) != 1 {
				t.Fatalf("%v %v", links, err)
			}
			trust = next
		}
		return trust
	}
	now := bundlestest.Now()
	for name, c := range map[string]struct {
		trust *bundles.Trust
		want  bool
	}{
		"replaced":                                {follow(""), true},
		"replaced twice":                          {follow("", ""), true},
		"revoked since":                           {follow("", "revoked: {keys: ["+f.Keys["alice"].ID()+"]}\n"), false},
		"revoked once, and forgotten":             {follow("revoked: {keys: ["+f.Keys["alice"].ID()+"]}\n", ""), false},
		"the release is revoked":                  {follow("revoked: {releases: [" + held.Digest() + "]}\n"), false},
		"outside the scope that is left":          {follow("scope: {kinds: [KubeArmorPolicy]}\n"), false},
		"the operator installed a file by others": {bundlestest.Load(t, f.YAML(t, bundlestest.First(1, "bob"))), false},
	} {
		v, problems, err := cache.Load(bundles.LevelEnforce, c.trust, bundles.Seen{}, now)
		if err != nil || (v != nil) != c.want {
			t.Errorf("%s: %v %v %v", name, v, problems, err)
			continue
		}
		again, err := held.Again(c.trust, bundles.Seen{}, now)
		if (err == nil) != c.want {
			t.Errorf("%s: again: %v", name, err)
		}
		if !c.want {
			continue
		}
		for _, got := range []*bundles.Verified{v, again} {
			if got.Level() != bundles.LevelEnforce || len(got.Conditions()) != 1 || got.Conditions()[0].Type != bundles.ConditionDistrusted {
				t.Errorf("%s: %s %+v", name, got.Level(), got.Conditions())
			}
		}
		// As a new release it would not be taken.
		if _, err := bundles.Verify(bundlestest.Raw(f.Release(t, 6, "alice")), c.trust, bundles.Seen{}, now); !errors.Is(err, bundles.ErrTooFewSigners) {
			t.Errorf("%s: a new one: %v", name, err)
		}
	}
}

// FuzzSuccession: no bytes replace a trust file without its signers.
func FuzzSuccession(f *testing.F) {
	fleet := bundlestest.New(f, "alice")
	first := bundlestest.First(1, "alice")
	host := bundlestest.Load(f, fleet.YAML(f, first))
	first.Version = 2
	files := map[string][]byte{}
	fleet.Succession(f, files, first, "alice")
	f.Add(append(files[bundles.TrustFile(2)], '\n'), files[bundles.TrustSignatureFile(2, "alice")])
	f.Fuzz(func(t *testing.T, text, sig []byte) {
		got, _, err := bundles.Succeed(bundles.NewMemFS(map[string][]byte{bundles.TrustFile(2): text, bundles.TrustSignatureFile(2, "alice"): sig}), host)
		if err == nil && string(text) != string(files[bundles.TrustFile(2)]) {
			t.Fatalf("%q became version %d", text, got.Version)
		}
		if err != nil && bundles.RefusalName(err) == "" {
			t.Fatalf("an error without a name: %v", err)
		}
	})
}

func with(files map[string][]byte, path string, data []byte) map[string][]byte {
	out := map[string][]byte{}
	maps.Copy(out, files)
	out[path] = data
	if data == nil {
		delete(out, path)
	}
	return out
}
