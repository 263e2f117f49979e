// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// TestPublisherRemembers: a registry that shows an older artifact at the tag is not published on, nor one where
// somebody built on that.
func TestPublisherRemembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, serve(t, inProcess(true)), "alice")
	dir := t.TempDir()
	publish := func(word string, forget bool) (*bundles.Published, error) {
		ch := bundles.Remembering(w.channel(t), bundles.NewChannelMemory(dir, w.ref(":stable"), "stable", forget))
		return bundles.Publish(t.Context(), ch, bundles.PublishOptions{
			Trust: w.trust, Now: w.clock.now(), Keys: []*bundles.KeySigner{w.fleet.Keys["alice"]},
			Content: bundles.Content{Files: map[string][]byte{"a.yaml": bundlestest.Policy(word)}, Commit: bundlestest.Commit, Issued: bundlestest.Issued()},
		})
	}
	var published []bundles.Revision
	for i, word := range []string{"a", "b"} {
		p, err := publish(word, false)
		if err != nil || p.Sequence != int64(i+1) {
			t.Fatalf("%+v %v", p, err)
		}
		published = append(published, p.Revision)
	}
	w.retag(t, published[0])
	if _, err := publish("c", false); !errors.Is(err, bundles.ErrRewritten) {
		t.Fatalf("an older artifact: %v", err)
	}
	// Somebody without the memory; the tag of release 2 is taken, and the next number is not.
	if _, err := bundles.Publish(t.Context(), w.channel(t), bundles.PublishOptions{
		Trust: w.trust, Now: w.clock.now(), Keys: []*bundles.KeySigner{w.fleet.Keys["alice"]}, Sequence: 3,
		Content: bundles.Content{Files: map[string][]byte{"a.yaml": bundlestest.Policy("d")}, Commit: bundlestest.Commit, Issued: bundlestest.Issued()},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := publish("c", false); !errors.Is(err, bundles.ErrRewritten) {
		t.Fatalf("somebody built on it: %v", err)
	}
	if p, err := publish("c", true); err != nil || p.Sequence != 4 {
		t.Fatalf("its owners say that it is well: %+v %v", p, err)
	}
}

// TestOverwrittenAfterThePublication: somebody who writes the tag after us is seen, and built upon.
func TestOverwrittenAfterThePublication(t *testing.T) {
	t.Parallel()
	w := newWorld(t, serve(t, inProcess(true)), "alice")
	w.publish(t, map[string][]byte{"a.yaml": bundlestest.Policy("a")}, "alice")
	theirs := w.publish(t, map[string][]byte{"a.yaml": bundlestest.Policy("b")}, "alice")
	put := false
	w.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path != "/v2/acme/policy/manifests/stable":
		case r.Method == http.MethodPut:
			put = true
		case put && r.Method == http.MethodHead:
			w.intercept(nil)
			w.retag(t, theirs.Revision)
		}
		return false
	})
	p, err := bundles.Publish(t.Context(), w.channel(t), bundles.PublishOptions{
		Trust: w.trust, Now: w.clock.now(), Keys: []*bundles.KeySigner{w.fleet.Keys["alice"]}, Sequence: 9,
		Content: bundles.Content{Files: map[string][]byte{"a.yaml": bundlestest.Policy("c")}, Commit: bundlestest.Commit, Issued: bundlestest.Issued()},
		Wait:    func(context.Context, int) error { return nil },
	})
	if err != nil || p.Attempts != 2 || p.Sequence != 9 {
		t.Fatalf("%+v %v", p, err)
	}
	if v := w.accepted(t, w.source(t, ":stable")); v.Release().Sequence != 9 {
		t.Fatalf("hosts see %d", v.Release().Sequence)
	}
}

// retag moves the channel's tag.
func (w *world) retag(t *testing.T, to bundles.Revision) {
	t.Helper()
	repo, err := name.NewRepository(w.host + "/acme/policy")
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Get(repo.Digest(string(to)))
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Tag(repo.Tag("stable"), d); err != nil {
		t.Fatal(err)
	}
}
