// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// resolved is what a keychain shows to a registry.
func resolved(t *testing.T, c Credentials, registry string) authn.AuthConfig {
	t.Helper()
	reg, err := name.NewRegistry(registry)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := keychain{&c}.ResolveContext(t.Context(), reg)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := auth.Authorization()
	if err != nil {
		t.Fatal(err)
	}
	return *cfg
}

// tokens is a cloud's service that gives tokens, by a service account's file and by a machine's metadata.
func tokens(t *testing.T) (url string) {
	t.Helper()
	answer := func(token string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Metadata-Flavor", "Google")
			_, _ = io.WriteString(w, `{"access_token":"`+token+`","token_type":"Bearer","expires_in":3600}`)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", answer("of-the-account"))
	mux.HandleFunc("GET /computeMetadata/v1/instance/service-accounts/default/token", answer("of-the-machine"))
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Metadata-Flavor", "Google") })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// TestCloudGoogle: a service account's file, or the machine's own identity, becomes what Google's registries take; no
// other registry is shown it.
func TestCloudGoogle(t *testing.T) {
	url := tokens(t)
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(url, "http://"))
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	if got := resolved(t, Credentials{Cloud: "google"}, "europe-docker.pkg.dev"); got.Password != "of-the-machine" {
		t.Errorf("of the machine: %+v", got)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "muster@acme.example", "token_uri": url + "/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "account.json")
	if err := os.WriteFile(path, account, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
	if got := resolved(t, Credentials{Cloud: "google"}, "gcr.io"); got.Username != "_token" || got.Password != "of-the-account" {
		t.Errorf("of the account: %+v", got)
	}
	for registry, want := range map[string]bool{"gcr.io": true, "eu.gcr.io": true, "europe-docker.pkg.dev": true, "evil-gcr.io": false, "pkg.dev.evil.example": false, "registry.example.com": false} {
		ref, err := Parse("oci://" + registry + "/acme/policy:stable")
		if err != nil {
			t.Fatal(err)
		}
		if err := (&Credentials{Cloud: "google"}).check(ref); (err == nil) != want {
			t.Errorf("%s: %v", registry, err)
		}
	}
	if err := (&Credentials{Cloud: "aws"}).check(&Reference{}); err == nil {
		t.Error("a cloud that is not known")
	}
}

// TestPersonsKeychains: a person's docker configuration and CI's token serve who publishes, and never a host.
func TestPersonsKeychains(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("GITHUB_TOKEN", "ci-token")
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"registry.example.com":{"auth":"YW5uOnNlY3JldA=="}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := resolved(t, Credentials{Person: true}, "registry.example.com"); got.Username != "ann" || got.Password != "secret" {
		t.Errorf("docker's: %+v", got)
	}
	if got := resolved(t, Credentials{Person: true}, "ghcr.io"); got.Password != "ci-token" {
		t.Errorf("CI's: %+v", got)
	}
	for _, registry := range []string{"registry.example.com", "ghcr.io"} {
		if got := resolved(t, Credentials{}, registry); got != (authn.AuthConfig{}) {
			t.Errorf("a host at %s: %+v", registry, got)
		}
	}
}
