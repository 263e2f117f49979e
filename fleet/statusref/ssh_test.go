// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statusref

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/muster-fleet/muster/fleet"
)

// The whole way through a real sshd.
func TestSSHTransport(t *testing.T) {
	t.Parallel()
	s, c := newServer(t), newClock()
	addr, auth := serveSSH(t)
	s.url = "ssh://root@" + addr + s.dir
	all := enrol(t, "web-1")
	h := newHost(t, s, c, "web-1", all)
	h.pub.cfg.Remote.Auth, h.col.cfg.Remote.Auth = auth, auth
	for range 2 {
		if err := h.pub.Report(context.Background(), testReport("web-1", c)); err != nil {
			t.Fatal(err)
		}
		collect(t, h.col, "")
		c.advance(2 * time.Minute)
	}
	s.url = "file://" + s.dir
	if roll, _ := readRoll(t, s, fleet.Collectors{Hosts: all}, c); roll.Hosts[0].Sequence != 2 {
		t.Errorf("%+v", roll.Hosts)
	}
}

// need skips without a program, except where everything must be there.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") != "":
		t.Fatalf("%s is needed and not installed", name)
	default:
		t.Skipf("%s is not installed", name)
	}
	return ""
}

// serveSSH starts sshd. As root it gets a mount namespace of its own for /run/sshd, which sshd insists on.
func serveSSH(t *testing.T) (string, gitssh.AuthMethod) {
	t.Helper()
	sshd, dir := need(t, "sshd"), t.TempDir()
	hostKey, err := fleet.LoadOrCreateHostKey(filepath.Join(dir, "host"))
	if err != nil {
		t.Fatal(err)
	}
	user := testKey(t, "user")
	if err := os.WriteFile(filepath.Join(dir, "authorized"), ssh.MarshalAuthorizedKey(user.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s/host\nAuthorizedKeysFile %s/authorized\nStrictModes no\nUsePAM no\n"+
		"PidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nLogLevel ERROR\n", port, dir, dir)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, sshd, "-D", "-e", "-f", dir+"/conf")
	if os.Getuid() == 0 {
		cmd = exec.CommandContext(ctx, need(t, "unshare"), "-m", "sh", "-c", // exec: the pid is sshd's
			"mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd && exec "+sshd+" -D -e -f "+dir+"/conf")
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	waitPort(t, addr)
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte(knownhosts.Line([]string{addr}, hostKey.PublicKey())+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	callback, err := gitssh.NewKnownHostsCallback(known)
	if err != nil {
		t.Fatal(err)
	}
	return addr, &gitssh.PublicKeys{User: "root", Signer: user, HostKeyCallbackHelper: gitssh.HostKeyCallbackHelper{HostKeyCallback: callback}}
}

// waitPort waits until somebody listens.
func waitPort(t *testing.T, addr string) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("nobody listens on %s: %v", addr, err)
		case <-tick.C:
		}
	}
}
