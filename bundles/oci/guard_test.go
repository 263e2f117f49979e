// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
)

func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

// TestWhereARegistryMayLead: decided on the address, after the name was resolved.
func TestWhereARegistryMayLead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		own, to string
		ok      bool
	}{
		{"203.0.113.5:443", "198.51.100.7:443", true}, // an object store, a token server
		{"203.0.113.5:443", "10.0.0.8:443", false},
		{"203.0.113.5:443", "100.64.0.1:443", false},
		{"203.0.113.5:443", "[fd00::1]:443", false},
		{"203.0.113.5:443", "127.0.0.1:443", false},
		{"203.0.113.5:443", "[::ffff:127.0.0.1]:443", false},
		{"203.0.113.5:443", "169.254.169.254:80", false},
		{"203.0.113.5:443", "0.0.0.0:443", false},
		{"10.0.0.8:443", "10.0.0.9:443", true}, // a company's registry and its token server
		{"10.0.0.8:443", "198.51.100.7:443", true},
		{"10.0.0.8:443", "127.0.0.1:443", false},
		{"10.0.0.8:443", "169.254.169.254:80", false},
		{"127.0.0.1:443", "127.0.0.1:9443", true},
		{"127.0.0.1:443", "[fe80::1]:443", false},
	} {
		ref, err := Parse("oci://registry.example.com/p:stable")
		if err != nil {
			t.Fatal(err)
		}
		g := newGuard(ref, &tls.Config{MinVersion: tls.VersionTLS12}, noProxy, time.Now)
		if err := g.admit("registry.example.com:443", c.own); err != nil {
			t.Fatalf("%s: its own address: %v", c.own, err)
		}
		err = g.admit("elsewhere.example.org:443", c.to)
		if (err == nil) != c.ok || err != nil && bundles.RefusalName(err) != "elsewhere" {
			t.Errorf("a registry at %s leads to %s: %v", c.own, c.to, err)
		}
	}
}

func TestPlainHTTPIsSpelledOut(t *testing.T) {
	t.Parallel()
	for raw, ok := range map[string]bool{
		"oci://127.0.0.1:5000/p:s": true, "oci://localhost:5000/p:s": true, "oci+http://registry.internal/p:s": true,
		"oci://registry.internal/p:s": false, "oci://10.0.0.8:5000/p:s": false, // the library would fall back to HTTP here
		"oci://192.168.1.2/p:s": false, "oci://registry.local/p:s": false,
	} {
		ref, err := Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		g := newGuard(ref, nil, noProxy, time.Now)
		if err := g.checkScheme(&url.URL{Scheme: "http", Host: ref.repo.RegistryStr()}); (err == nil) != ok {
			t.Errorf("%s over HTTP: %v", raw, err)
		}
	}
}

// TestNoRequestWithoutABudget: a request that nobody bounded is not made.
func TestNoRequestWithoutABudget(t *testing.T) {
	t.Parallel()
	ref, err := Parse("oci://127.0.0.1:1/p:s")
	if err != nil {
		t.Fatal(err)
	}
	g := newGuard(ref, nil, noProxy, time.Now)
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://127.0.0.1:1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := g.RoundTrip(req)
	if res != nil {
		_ = res.Body.Close()
	}
	if bundles.RefusalName(err) != "limits" {
		t.Error(err)
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	const digest = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, good := range []string{"oci://r.example.com/a/b:stable", "oci://r.example.com:5000/a" + digest, "oci://r.example.com/a?semver=%3E%3D1.2+%3C2", "oci://[::1]:5000/a:x"} {
		if _, err := Parse(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"https://r.example.com/a:x": "begins with oci://", "oci://r.example.com/a": "exactly one of", "oci://r.example.com/a:x" + digest: "exactly one of",
		"oci://user:secret@r.example.com/a:x": "user or password", "oci://r.example.com/a?semver=x.y.z.q": "the range", "oci://r.example.com/a:x?insecure=1": "only one ?semver=",
		"oci://r.example.com/A:x": "reference", "oci://r.example.com/../a:x": "reference", "oci://r.example.com/a:x y": "reference", "oci://r.example.com/a@sha256:00": "reference", "oci://:x": "reference",
	} {
		_, err := Parse(bad)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bad, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	tags := []string{"stable", "stable-1.9.0", "stable-1.10.0", "canary-1.99.0", "v1.11.0", "1.12.0-rc.1", "2.0.0", "sha256-00.sig", strings.Repeat("1", 300), "01.2.3"}
	for text, want := range map[string]string{
		"1.x": "v1.11.0", "~1.9": "stable-1.9.0", ">=1.10 <1.11": "stable-1.10.0", ">=1": "2.0.0", "3.x": "", ">=1.12.0-0 <2": "1.12.0-rc.1",
	} {
		ref, err := Parse("oci://r.example.com/a?semver=" + url.QueryEscape(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := ref.highest(tags, "stable"); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
