// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/oci"
)

const secret = "s3cr3t-of-the-host"

func write(t *testing.T, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// with answers a source with these credentials.
func (w *world) with(t *testing.T, c oci.Credentials) (*oci.Source, error) {
	t.Helper()
	return oci.New(oci.Config{Reference: w.ref(":stable"), Channel: "stable", Credentials: c, Now: w.clock.now})
}

func (w *world) publishWith(t *testing.T, c oci.Credentials) {
	t.Helper()
	w.creds = c
	w.publish(t, bundlestest.Files(), "alice")
}

func basicRegistry(t *testing.T) (*world, func(password string)) {
	t.Helper()
	dir := t.TempDir()
	set := func(password string) {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		// docker-registry reads the file again when its time changes.
		path := write(t, dir, "htpasswd", "host:"+string(hash)+"\n", 0o600)
		at := time.Now().Add(time.Duration(len(password)) * time.Second)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	set(secret)
	extra := fmt.Sprintf("auth: {htpasswd: {realm: policy, path: %q}}\n", filepath.Join(dir, "htpasswd"))
	back := &url.URL{Scheme: "http", Host: dockerRegistry(t, extra)}
	return newWorld(t, serve(t, httputil.NewSingleHostReverseProxy(back)), "alice"), set
}

// TestBasicAuthentication: every way to name a password, against docker-registry; wrong ones fail without saying it.
func TestBasicAuthentication(t *testing.T) {
	t.Parallel()
	w, set := basicRegistry(t)
	dir := t.TempDir()
	user := write(t, dir, "user", "host\n", 0o644)
	password := write(t, dir, "password", secret+"\n", 0o600)
	auth := base64.StdEncoding.EncodeToString([]byte("host:" + secret))
	config := func(name, format string) string { return write(t, dir, name, fmt.Sprintf(format, w.host, auth), 0o600) }
	good := oci.Credentials{UsernameFile: user, PasswordFile: password}
	w.publishWith(t, good)
	for what, c := range map[string]oci.Credentials{
		"files":                   good,
		"docker configuration":    {DockerConfigFile: config("config.json", `{"auths":{%q:{"auth":%q}}}`)},
		"pull secret, by path":    {DockerConfigFile: config("pull.json", `{"auths":{"https://%s/acme":{"auth":%q},"other.example.com":{"auth":"eDp5"}}}`)},
		"older pull secret":       {DockerConfigFile: config(".dockercfg", `{"http://%s/v2/":{"auth":%q}}`)},
		"environment, as in CI":   {Username: "host", Password: secret},
		"a linked mounted secret": {UsernameFile: user, PasswordFile: link(t, password)},
	} {
		s, err := w.with(t, c)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		w.accepted(t, s)
		w.unchanged(t, s, "HEAD /v2/acme/policy/manifests/stable")
	}
	// A rotated password: refused once it is wrong, read again without a restart, and never repeated.
	s, err := w.with(t, good)
	if err != nil {
		t.Fatal(err)
	}
	w.accepted(t, s)
	const next = "another-passphrase-of-the-host"
	set(next)
	if _, err := s.Latest(t.Context()); err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), auth) {
		t.Errorf("with the old password: %v", err)
	} else if stalled, ok := err.(interface{ Stalled() bool }); !ok || !stalled.Stalled() {
		t.Errorf("nobody is told that a person is needed: %T", err)
	}
	write(t, dir, "password", next, 0o600)
	if _, err := s.Latest(t.Context()); err != nil {
		t.Errorf("with the new password: %v", err)
	}
	if s, err = w.with(t, oci.Credentials{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Latest(t.Context()); err == nil {
		t.Error("nobody was asked for a password")
	}
}

func link(t *testing.T, to string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCredentialFilesThatAreRefused: before or at the first use, by a reason that holds no secret.
func TestCredentialFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newWorld(t, serve(t, inProcess(true)), "alice")
	w.publish(t, bundlestest.Files(), "alice")
	open := write(t, dir, "open", secret, 0o644)
	for what, c := range map[string]struct {
		c    oci.Credentials
		want string
	}{
		"a password for everybody":  {oci.Credentials{PasswordFile: open}, "others can read it"},
		"a configuration for all":   {oci.Credentials{DockerConfigFile: open}, "others can read it"},
		"an empty token":            {oci.Credentials{TokenFile: write(t, dir, "empty", "", 0o600)}, "empty or larger"},
		"a directory":               {oci.Credentials{TokenFile: dir}, "not a regular file"},
		"no docker configuration":   {oci.Credentials{DockerConfigFile: write(t, dir, "junk", secret, 0o600)}, "no docker configuration"},
		"a bad pair":                {oci.Credentials{DockerConfigFile: write(t, dir, "pair", `{"auths":{"`+w.host+`":{"auth":"c2VjcmV0"}}}`, 0o600)}, "no docker configuration"},
		"a helper that is a path":   {oci.Credentials{DockerConfigFile: write(t, dir, "path", `{"credsStore":"../../tmp/x"}`, 0o600)}, "is not one"},
		"a helper that is missing":  {oci.Credentials{DockerConfigFile: write(t, dir, "gone", `{"credsStore":"muster-has-none"}`, 0o600)}, "not found"},
		"two ways at once":          {oci.Credentials{PasswordFile: open, TokenFile: open}, "contradict"},
		"a cloud's token elsewhere": {oci.Credentials{Cloud: "google"}, "registries of Google"},
		"a proxy with a password":   {oci.Credentials{Proxy: "http://u:" + secret + "@proxy:3128"}, "contains a password"},
		"half a certificate":        {oci.Credentials{ClientCertFile: open}, "needs its key"},
	} {
		s, err := w.with(t, c.c)
		if err == nil {
			_, err = s.Latest(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Credentials and plain HTTP to another machine.
	_, err := oci.New(oci.Config{Reference: "oci+http://r.example.com/p:s", Channel: "stable", Now: w.clock.now, Credentials: oci.Credentials{TokenFile: open}})
	if err == nil || !strings.Contains(err.Error(), "in the clear") {
		t.Errorf("%v", err)
	}
}

// TestACredentialHelperIsRunWithoutAShell: its name and the registry are arguments and input, never a command line.
func TestACredentialHelperIsRunWithoutAShell(t *testing.T) {
	w, _ := basicRegistry(t)
	dir := t.TempDir()
	helper := "#!/bin/sh\n[ \"$1\" = get ] || exit 1\nread -r host\n[ \"$host\" = " + w.host + " ] || { echo credentials not found; exit 1; }\n" +
		`echo '{"Username":"host","Secret":"` + secret + "\"}'\n"
	write(t, dir, "docker-credential-test", helper, 0o755)
	write(t, dir, "docker-credential-loud", "#!/bin/sh\necho "+secret+"; echo "+secret+" >&2; exit 1\n", 0o755)
	write(t, dir, "docker-credential-endless", "#!/bin/sh\nexec cat /dev/zero\n", 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	config := func(name, text string) oci.Credentials {
		return oci.Credentials{DockerConfigFile: write(t, dir, name, text, 0o600)}
	}
	w.publishWith(t, config("a.json", `{"credHelpers":{"`+w.host+`":"test"},"credsStore":"loud"}`))
	s, err := w.with(t, config("b.json", `{"credsStore":"test"}`))
	if err != nil {
		t.Fatal(err)
	}
	w.accepted(t, s)
	for _, bad := range []string{"loud", "endless"} {
		s, err := w.with(t, config(bad+".json", `{"credsStore":"`+bad+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Latest(t.Context()); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestTokens: a token is fetched once and used for every poll until it is refused.
func TestTokens(t *testing.T) {
	t.Parallel()
	var generation, exchanges atomic.Int64
	next := inProcess(true)
	w := newWorld(t, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			exchanges.Add(1)
			if _, password, _ := r.BasicAuth(); password != secret {
				rw.WriteHeader(http.StatusUnauthorized)
				return
			}
			_ = json.NewEncoder(rw).Encode(map[string]string{"token": fmt.Sprintf("generation-%d", generation.Load())})
			return
		}
		if r.Header.Get("Authorization") != fmt.Sprintf("Bearer generation-%d", generation.Load()) {
			rw.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=\"http://%s/token\",service=test", r.Host))
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(rw, r)
	})), "alice")
	good := oci.Credentials{Username: "host", Password: secret}
	w.publishWith(t, good)
	s, err := w.with(t, good)
	if err != nil {
		t.Fatal(err)
	}
	w.accepted(t, s)
	w.unchanged(t, s, "HEAD /v2/acme/policy/manifests/stable")
	generation.Add(1)
	before := exchanges.Load()
	if _, err := s.Latest(t.Context()); err != nil || exchanges.Load() != before+1 {
		t.Errorf("with an expired token: %v, %d exchanges", err, exchanges.Load()-before)
	}
	w.unchanged(t, s, "HEAD /v2/acme/policy/manifests/stable")
	if s, err = w.with(t, oci.Credentials{Username: "host", Password: "wrong-" + secret}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Latest(t.Context()); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a wrong password: %v", err)
	}
}

// TestTLS: a private authority, this host's own certificate, and neither.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "both"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := write(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o644)
	private := write(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})), 0o600)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(pemOf(t, cert)))
	wr := &wire{}
	server := httptest.NewUnstartedServer(wr.ServeHTTP(inProcess(true)))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	wr.host = strings.TrimPrefix(server.URL, "https://")
	w := newWorld(t, wr, "alice")
	good := oci.Credentials{CAFile: cert, ClientCertFile: cert, ClientKeyFile: private}
	w.publishWith(t, good)
	s, err := w.with(t, good)
	if err != nil {
		t.Fatal(err)
	}
	w.accepted(t, s)
	w.unchanged(t, s, "HEAD /v2/acme/policy/manifests/stable")
	w.take()
	for what, c := range map[string]oci.Credentials{"no certificate of our own": {CAFile: cert}, "an unknown authority": {ClientCertFile: cert, ClientKeyFile: private}} {
		s, err := w.with(t, c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Latest(t.Context()); err == nil {
			t.Errorf("%s: it was let in", what)
		}
	}
	if got := w.take(); slices.ContainsFunc(got, func(r string) bool { return strings.Contains(r, "manifests") }) {
		t.Errorf("asked all the same: %q", got)
	}
}

func pemOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
