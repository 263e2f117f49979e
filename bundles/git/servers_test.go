// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/test/servers"
)

// need skips a test that cannot run here, and fails it where everything must run.
func need(t testing.TB, tool string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		p := filepath.Join(dir, tool)
		if info, err := os.Stat(p); err == nil && info.Mode()&0o111 != 0 {
			return p
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed", tool)
	}
	t.Skipf("%s is not installed", tool)
	return ""
}

// run runs git as a person would, without this machine's configuration.
func run(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need(t, "git"), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.com", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// bare makes an empty repository.
func bare(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "policy.git")
	run(t, ".", "init", "--quiet", "--bare", dir)
	run(t, dir, "config", "http.receivepack", "true")
	return dir
}

// commit puts files on the channel branch of a bare repository, by hand, and answers the commit.
func commit(t testing.TB, repo string, files map[string][]byte, parents ...string) string {
	t.Helper()
	index := filepath.Join(t.TempDir(), "index")
	for p, data := range files {
		blob := pipe(t, repo, index, data, "hash-object", "-w", "--stdin")
		pipe(t, repo, index, nil, "update-index", "--add", "--cacheinfo", "100644,"+blob+","+p)
	}
	return commitTree(t, repo, pipe(t, repo, index, nil, "write-tree"), parents...)
}

func commitTree(t testing.TB, repo, tree string, parents ...string) string {
	t.Helper()
	args := []string{"commit-tree", tree, "-m", "made by hand"}
	for _, p := range parents {
		args = append(args, "-p", p)
	}
	c := run(t, repo, args...)
	run(t, repo, "update-ref", "refs/heads/muster/stable", c)
	return c
}

func pipe(t testing.TB, repo, index string, in []byte, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need(t, "git"), args...)
	cmd.Dir, cmd.Stdin = repo, bytes.NewReader(in)
	cmd.Env = append(os.Environ(), "GIT_INDEX_FILE="+index)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// httpServer is git http-backend, counting what goes over the wire.
type httpServer struct {
	*httptest.Server
	requests, sent atomic.Int64
	posts          atomic.Int64
	// Before is called before each request is served.
	before atomic.Pointer[func(*http.Request)]
}

func serveHTTP(t testing.TB, repo, user, password string) *httpServer {
	t.Helper()
	backend, err := servers.Git(filepath.Dir(repo), user)
	if err != nil {
		t.Fatal(err)
	}
	s := &httpServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if r.Method == http.MethodPost {
			s.posts.Add(1)
		}
		if f := s.before.Load(); f != nil {
			(*f)(r)
		}
		if u, p, _ := r.BasicAuth(); password != "" && (u != user || p != password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(&countingWriter{w, &s.sent}, r)
	}))
	t.Cleanup(s.Close)
	return s
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n.Add(int64(n))
	return n, err
}

// url is the address of a repository that the server has.
func (s *httpServer) url(repo string) string { return s.URL + "/" + filepath.Base(repo) }

// sshServer is a real sshd with one host key, a certificate of it, and one user key.
type sshServer struct {
	addr      string
	creds     git.Credentials
	authority ssh.PublicKey // that certified the host's key
}

// certify makes the certificate of a host's key for a name, and answers who made it.
func certify(t testing.TB, host ssh.PublicKey, name, path string) ssh.PublicKey {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	cert := &ssh.Certificate{Key: host, CertType: ssh.HostCert, ValidPrincipals: []string{name}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	write(t, path, ssh.MarshalAuthorizedKey(cert), 0o600)
	return ca.PublicKey()
}

func keyPair(t testing.TB, path string) ssh.PublicKey {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, pem.EncodeToMemory(block), 0o600)
	out, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func write(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

// serveSSH starts sshd. As root it gets a mount namespace of its own for /run/sshd, which sshd insists on.
func serveSSH(t testing.TB) *sshServer {
	t.Helper()
	sshd := need(t, "sshd")
	dir := t.TempDir()
	hostKey, userKey := keyPair(t, filepath.Join(dir, "host")), keyPair(t, filepath.Join(dir, "user"))
	write(t, filepath.Join(dir, "authorized"), ssh.MarshalAuthorizedKey(userKey), 0o600)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	authority := certify(t, hostKey, "127.0.0.1", filepath.Join(dir, "host-cert.pub"))
	conf := filepath.Join(dir, "sshd_config")
	write(t, conf, fmt.Appendf(nil, "ListenAddress 127.0.0.1\nPort %[1]s\nHostKey %[2]s\nHostCertificate %[2]s-cert.pub\nAuthorizedKeysFile %[3]s\nStrictModes no\nUsePAM no\n"+
		"PidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nLogLevel ERROR\n",
		port, filepath.Join(dir, "host"), filepath.Join(dir, "authorized")), 0o600)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, sshd, "-D", "-e", "-f", conf)
	if os.Getuid() == 0 {
		cmd = exec.CommandContext(ctx, need(t, "unshare"), "-m", "sh", "-c", // exec: the pid is sshd's
			"mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd && exec "+sshd+" -D -e -f "+conf)
	}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", log.String())
		}
	})
	waitPort(t, addr)
	known := filepath.Join(dir, "known_hosts")
	write(t, known, []byte(knownhosts.Line([]string{addr}, hostKey)+"\n"), 0o600)
	return &sshServer{addr: addr, authority: authority, creds: git.Credentials{SSHKeyFile: filepath.Join(dir, "user"), KnownHostsFile: known}}
}

// waitPort waits until somebody listens.
func waitPort(t testing.TB, addr string) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("nobody listens on %s: %v", addr, err)
		case <-tick.C:
		}
	}
}

func (s *sshServer) url(repo string) string { return "ssh://root@" + s.addr + repo }
