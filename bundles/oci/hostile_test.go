// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/oci"
)

// published is a world with one release, and a source that has polled and fetched it.
func published(t *testing.T) (*world, *oci.Source) {
	t.Helper()
	w := newWorld(t, serve(t, inProcess(true)), "alice")
	w.publish(t, bundlestest.Files(), "alice")
	s := w.source(t, ":stable")
	w.accepted(t, s)
	w.take()
	return w, s
}

func answer(status int, headers ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		return true
	}
}

// TestAThrottlingRegistryIsLeftAlone: one request, no GET in its place, none at all before the time it named.
func TestAThrottlingRegistryIsLeftAlone(t *testing.T) {
	t.Parallel()
	w, s := published(t)
	for header, silence := range map[string]time.Duration{
		"": 0, "120": 2 * time.Minute, "a date": 2 * time.Minute, "999999999": time.Hour, "-5": 0, "soon": 0,
	} {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			value := header
			if header == "a date" {
				value = w.clock.now().Add(silence).UTC().Format(http.TimeFormat)
			}
			w.intercept(answer(status, "Retry-After", value))
			if _, err := s.Latest(t.Context()); err == nil {
				t.Fatal("a throttled poll succeeded")
			}
			if got := w.take(); !slices.Equal(got, []string{"HEAD /v2/acme/policy/manifests/stable"}) {
				t.Errorf("%d %q: %q", status, header, got)
			}
			w.intercept(nil)
			if silence > 0 {
				_, err := s.Latest(t.Context())
				if wait, ok := errors.AsType[*oci.WaitError](err); !ok || len(w.take()) != 0 {
					t.Errorf("%d %q: asked again at once: %v %v", status, header, err, wait)
				}
				w.clock.pass(silence)
			}
			if _, err := s.Latest(t.Context()); err != nil {
				t.Errorf("%d %q: after the wait: %v", status, header, err)
			}
			w.take()
		}
	}
}

// TestARegistryWithoutHEADIsAskedWithGET: still one request a poll, once that is known.
func TestARegistryWithoutHEADIsAskedWithGET(t *testing.T) {
	t.Parallel()
	w, s := published(t)
	w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		return r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, "/stable") && answer(http.StatusMethodNotAllowed)(rw, r)
	})
	for range 2 {
		w.take()
		if _, err := s.Latest(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.take(); !slices.Equal(got, []string{"GET /v2/acme/policy/manifests/stable"}) {
		t.Errorf("%q", got)
	}
}

// deceit is one way in which a registry, or somebody on the way, misbehaves.
type deceit struct {
	path   string // that it answers
	do     func(http.ResponseWriter, *http.Request)
	want   string // the refusal's name; "" for an error without one
	bounds int    // requests at most
}

func redirect(to string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
}

func endless(contentType string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		junk := bytes.Repeat([]byte(" "), 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(junk); err != nil {
				return
			}
		}
	}
}

func TestHostileRegistries(t *testing.T) {
	t.Parallel()
	challenge := func(therem string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			answer(http.StatusUnauthorized, "WWW-Authenticate", fmt.Sprintf("Bearer therem=%q,service=x", therem))(w, r)
		}
	}
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	for what, d := range map[string]deceit{
		"a blob elsewhere: the metadata service": {path: "/blobs/", do: redirect("http://169.254.169.254/latest/meta-data"), want: ""},
		"a blob elsewhere, by a name":            {path: "/blobs/", do: redirect("http://metadata.invalid/x"), want: ""},
		"a blob in circles":                      {path: "/blobs/", do: redirect("/v2/acme/policy/blobs/again"), want: "limits", bounds: 20},
		"a manifest elsewhere":                   {path: "/manifests/", do: redirect("http://[fe80::1]/x"), want: ""},
		"a therem at the metadata service":       {path: "/v2/", do: challenge("http://169.254.169.254/token"), want: ""},
		"a therem that is a file":                {path: "/v2/", do: challenge("file:///etc/passwd"), want: ""},
		"an endless manifest":                    {path: "/manifests/sha256", do: endless(manifestType), want: "limits"},
		"an endless blob":                        {path: "/blobs/", do: endless("application/octet-stream"), want: "limits"},
		"an endless list of referrers":           {path: "/referrers/", do: endless("application/vnd.oci.image.index.v1+json"), want: "limits"},
		"other bytes for a manifest":             {path: "/manifests/sha256", do: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }, want: "altered"},
		"other bytes for a blob":                 {path: "/blobs/", do: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) }, want: "altered"},
		"nothing for a blob":                     {path: "/blobs/", do: func(http.ResponseWriter, *http.Request) {}, want: "altered"},
		"a page of an error": {path: "/blobs/", do: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, strings.Repeat("\x1b[31mlong ", 5000))
		}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, serve(t, inProcess(true)), "alice")
			w.publish(t, bundlestest.Files(), "alice")
			w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, d.path) && r.Method == http.MethodGet {
					d.do(rw, r)
					return true
				}
				return false
			})
			s := w.source(t, ":stable")
			w.take()
			begun := time.Now()
			_, err := w.verify(t, s)
			if err == nil || d.want != "" && bundles.RefusalName(err) != d.want {
				t.Fatalf("%q: %v", bundles.RefusalName(err), err)
			}
			if d.want != "" && !errors.Is(err, bundles.ErrWire) {
				t.Errorf("it would not be tried again: %v", err)
			}
			if text := err.Error(); len(text) > 700 || strings.ContainsAny(text, "\x1b\n") {
				t.Errorf("the error is %d bytes: %q", len(text), text)
			}
			if n := len(w.take()); n > max(d.bounds, 16) || time.Since(begun) > 20*time.Second {
				t.Errorf("%d requests in %s", n, time.Since(begun))
			}
			// The control: the same registry, honest again.
			w.intercept(nil)
			w.accepted(t, s)
		})
	}
}

// TestASlowRegistryEnds: a body that trickles is cut off at the time of one call.
func TestASlowRegistryEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, serve(t, inProcess(true)), "alice")
	w.publish(t, bundlestest.Files(), "alice")
	w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		rw.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
		return true
	})
	s, err := oci.New(oci.Config{Reference: w.ref(":stable"), Channel: "stable", Now: w.clock.now, Limits: oci.Limits{Time: 300 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.verify(t, s); err == nil || bundles.RefusalName(err) != "" {
		t.Errorf("%v", err)
	}
}

// TestWhatIsNoRelease: other things at the tag.
func TestWhatIsNoRelease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, serve(t, inProcess(true)), "alice")
	tag, err := name.NewTag(w.host + "/acme/policy:stable")
	if err != nil {
		t.Fatal(err)
	}
	s := w.source(t, ":stable")
	if _, err := s.Latest(t.Context()); bundles.RefusalName(err) != "no-release" {
		t.Errorf("nothing: %v", err)
	}
	image, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
	if _, err := w.verify(t, s); bundles.RefusalName(err) != "no-release" {
		t.Errorf("an image: %v", err)
	}
	if err := remote.WriteIndex(tag, empty.Index); err != nil {
		t.Fatal(err)
	}
	if _, err := w.verify(t, s); bundles.RefusalName(err) != "malformed" {
		t.Errorf("an index: %v", err)
	}
}

// TestAFloodOfReferrersHidesNoSignature: junk beside a release is bounded, and muster's own come first.
func TestAFloodOfReferrersHidesNoSignature(t *testing.T) {
	t.Parallel()
	w, s := published(t)
	digest, err := name.NewDigest(w.host + "/acme/policy@" + string(w.tip))
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Referrers(digest)
	if err != nil {
		t.Fatal(err)
	}
	there, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		list := v1.IndexManifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json"}
		for i := range 2000 {
			h, _, _ := v1.SHA256(strings.NewReader(fmt.Sprint(i)))
			list.Manifests = append(list.Manifests, v1.Descriptor{Digest: h, Size: 7, MediaType: "application/vnd.oci.image.manifest.v1+json", ArtifactType: "application/vnd.dev.sigstore.bundle.v0.3+json"})
		}
		for _, d := range there.Manifests {
			d.ArtifactType = "application/vnd.muster.release.signature.v1+json"
			list.Manifests = append(list.Manifests, d)
		}
		rw.Header().Set("Content-Type", string(list.MediaType))
		_ = json.NewEncoder(rw).Encode(list)
		return true
	})
	w.clock.pass(oci.DefaultRecheck)
	w.take()
	w.accepted(t, s)
	if n := len(w.take()); n > 150 {
		t.Errorf("%d requests", n)
	}
}
