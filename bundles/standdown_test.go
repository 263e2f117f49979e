// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// standDown is a statement as it travels, signed by these.
func standDown(t *testing.T, f *bundlestest.Fleet, trust *bundles.Trust, host string, by ...string) *bundles.SignedStandDown {
	t.Helper()
	s, err := bundles.NewStandDown(trust, host, bundlestest.Now(), time.Hour, "upgrade of the package")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range by {
		if err := s.Sign(t.Context(), trust, f.Keys[name]); err != nil {
			t.Fatal(err)
		}
	}
	return again(t, s)
}

func again(t *testing.T, s *bundles.SignedStandDown) *bundles.SignedStandDown {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = bundles.ReadStandDown(data); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStandDown(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice", "bob", "carol", "mallory")
	trust := bundlestest.Load(t, f.YAML(t, bundlestest.First(2, "alice", "bob", "carol")))
	revoking := bundlestest.First(2, "alice", "bob", "carol")
	revoking.Extra = "revoked: {keys: [" + f.Keys["bob"].ID() + "]}\n"
	fresh := func(string) bool { return false }
	used := func(string) bool { return true }
	other := func(change func(*bundlestest.TrustFile)) *bundles.Trust {
		file := bundlestest.First(2, "alice", "bob", "carol")
		change(&file)
		return bundlestest.Load(t, f.YAML(t, file))
	}
	for _, c := range []struct {
		name  string
		s     *bundles.SignedStandDown
		trust *bundles.Trust
		after time.Duration
		used  func(string) bool
		want  string
	}{
		{"signed by two for this host", standDown(t, f, trust, "web-1", "alice", "bob"), trust, 0, fresh, ""},
		{"for every host", standDown(t, f, trust, "*", "carol", "bob"), trust, 59 * time.Minute, fresh, ""},
		{"by nobody", standDown(t, f, trust, "web-1"), trust, 0, fresh, "too-few-signers"},
		{"by one", standDown(t, f, trust, "web-1", "alice"), trust, 0, fresh, "too-few-signers"},
		{"by one twice", standDown(t, f, trust, "web-1", "alice", "alice"), trust, 0, fresh, "too-few-signers"},
		{"by one whose key is revoked", standDown(t, f, trust, "web-1", "alice", "bob"), bundlestest.Load(t, f.YAML(t, revoking)), 0, fresh, "too-few-signers"},
		{"for another host", standDown(t, f, trust, "web-2", "alice", "bob"), trust, 0, fresh, "wrong-host"},
		{"before its window", standDown(t, f, trust, "web-1", "alice", "bob"), trust, -time.Second, fresh, "not-yet-valid"},
		{"after its window", standDown(t, f, trust, "web-1", "alice", "bob"), trust, time.Hour, fresh, "expired"},
		{"once more", standDown(t, f, trust, "web-1", "alice", "bob"), trust, 0, used, "replayed"},
		{"of another fleet", standDown(t, f, trust, "web-1", "alice", "bob"), other(func(v *bundlestest.TrustFile) { v.Fleet = "acme-test" }), 0, fresh, "wrong-fleet"},
		{"of another channel", standDown(t, f, trust, "web-1", "alice", "bob"), other(func(v *bundlestest.TrustFile) { v.Channel = "canary" }), 0, fresh, "wrong-channel"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d, signers, err := c.s.Verify(c.trust, "web-1", bundlestest.Now().Add(c.after), c.used)
			if got := bundles.RefusalName(err); got != c.want || (err != nil) != (c.want != "") {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if err == nil && (len(signers) != 2 || d.Reason != "upgrade of the package") {
				t.Errorf("%+v by %q", d, signers)
			}
		})
	}
}

// One byte of the document that is not what was signed takes every signature away, and what else a key has signed is
// no stand-down.
func TestStandDownAltered(t *testing.T) {
	t.Parallel()
	f := bundlestest.New(t, "alice", "bob")
	trust := bundlestest.Load(t, f.YAML(t, bundlestest.First(2, "alice", "bob")))
	fresh := func(string) bool { return false }
	s := standDown(t, f, trust, "web-2", "alice", "bob")
	s.Document = bytes.Replace(s.Document, []byte("web-2"), []byte("web-1"), 1)
	if _, _, err := s.Verify(trust, "web-1", bundlestest.Now(), fresh); !errors.Is(err, bundles.ErrTooFewSigners) {
		t.Errorf("altered: %v", err)
	}
	s = standDown(t, f, trust, "web-1", "alice")
	s.Document = f.Doc(t, bundlestest.Files(), 5)
	for _, name := range []string{"alice", "bob"} {
		s.Signatures[name] = bundlestest.Bundle(t, f.Keys[name], s.Document)
	}
	if _, _, err := s.Verify(trust, "web-1", bundlestest.Now(), fresh); !errors.Is(err, bundles.ErrUnknownField) {
		t.Errorf("a release: %v", err)
	}
	if err := standDown(t, f, trust, "web-1").Sign(t.Context(), trust, bundlestest.NewKey(t)); err == nil {
		t.Error("a stranger may sign")
	}
	for _, lasting := range []time.Duration{0, -time.Hour, bundles.MaxStandDown + time.Second} {
		if _, err := bundles.NewStandDown(trust, "web-1", bundlestest.Now(), lasting, "x"); !errors.Is(err, bundles.ErrMalformed) {
			t.Errorf("a window of %s: %v", lasting, err)
		}
	}
	// The control socket of the agent takes this much.
	for size, want := range map[int]error{64 << 10: bundles.ErrMalformed, 64<<10 + 1: bundles.ErrLimits} {
		if _, err := bundles.ReadStandDown(bytes.Repeat([]byte("x"), size)); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	for _, text := range []string{"", "{}", `{"document":"e30=","signatures":{},"more":1}`, `{"document":"e30="} {}`} {
		s, err := bundles.ReadStandDown([]byte(text))
		if err == nil {
			_, _, err = s.Verify(trust, "web-1", bundlestest.Now(), fresh)
		}
		if err == nil {
			t.Errorf("%q is a stand-down", text)
		}
	}
}
