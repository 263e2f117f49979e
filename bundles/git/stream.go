// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/crypto/ssh"
)

// streamSession is git-upload-pack over a pair of pipes: a local process, or a remote one through ssh.
type streamSession struct {
	in     io.WriteCloser
	out    io.Reader
	b      *budget
	stderr *tail
	stop   func() // ends the process or connection; idempotent
	asked  bool
}

// tail keeps the beginning of what the other side complains about.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 1024 - t.buf.Len(); room > 0 {
		t.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf.Bytes()))
}

func openFile(ctx context.Context, ep *transport.Endpoint, b *budget) (session, error) {
	ctx, cancel := context.WithCancel(ctx)
	// safe.directory: the repository on this machine was named by the operator; git is not asked to trust it
	// any further, and no hook runs for an upload.
	cmd := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "upload-pack", ep.Path)
	cmd.Env = append(cmd.Environ(), "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C")
	s := &streamSession{b: b, stderr: &tail{}}
	cmd.Stderr = s.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		cancel()
		if errors.Is(err, exec.ErrNotFound) {
			return nil, errors.New("file:// needs git on this machine")
		}
		return nil, err
	}
	s.in, s.out = in, b.reader(out)
	s.stop = sync.OnceFunc(func() { cancel(); _ = cmd.Wait() })
	return s, nil
}

func sshAddress(ep *transport.Endpoint) string {
	port := ep.Port
	if port == 0 {
		port = 22
	}
	return net.JoinHostPort(ep.Host, strconv.Itoa(port))
}

func openSSH(ctx context.Context, ep *transport.Endpoint, creds Credentials, b *budget) (session, error) {
	addr := sshAddress(ep)
	cfg, err := creds.sshConfig(ep.User, addr)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	// Closing the connection is what ends every read and write when the time is over.
	unhook := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c, chans, reqs, err := ssh.NewClientConn(conn, addr, cfg)
	if err != nil {
		unhook()
		_ = conn.Close()
		return nil, explainSSH(err)
	}
	client := ssh.NewClient(c, chans, reqs)
	s := &streamSession{b: b, stderr: &tail{}, stop: sync.OnceFunc(func() { unhook(); _ = client.Close() })}
	if err := s.startSSH(client, ep.Path); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *streamSession) startSSH(client *ssh.Client, path string) error {
	sess, err := client.NewSession()
	if err != nil {
		return err
	}
	sess.Stderr = s.stderr
	if s.in, err = sess.StdinPipe(); err != nil {
		return err
	}
	out, err := sess.StdoutPipe()
	if err != nil {
		return err
	}
	s.out = s.b.reader(out)
	return sess.Start("git-upload-pack " + quote(path))
}

func (s *streamSession) fail(what string, err error) error {
	if blamed := s.b.blame(err); blamed != err { //nolint:errorlint // identity is meant
		return blamed
	}
	s.stop()
	if msg := s.stderr.String(); msg != "" {
		return fmt.Errorf("%s: %w (the other side says: %q)", what, err, msg)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (s *streamSession) advert(context.Context) (*packp.AdvRefs, error) {
	adv := packp.NewAdvRefs()
	switch err := adv.Decode(s.out); {
	case errors.Is(err, packp.ErrEmptyAdvRefs):
		return nil, transport.ErrEmptyRemoteRepository
	case err != nil:
		return nil, s.fail("reading the refs", err)
	case adv.IsEmpty():
		return nil, transport.ErrEmptyRemoteRepository
	}
	transport.FilterUnsupportedCapabilities(adv.Capabilities)
	return adv, nil
}

func (s *streamSession) pack(_ context.Context, adv *packp.AdvRefs, ask order) ([]byte, error) {
	req, err := packRequest(adv, ask)
	if err != nil {
		return nil, err
	}
	s.asked = true
	if err := req.UploadRequest.Encode(s.in); err != nil {
		return nil, s.fail("asking for the pack", err)
	}
	if err := req.UploadHaves.Encode(s.in, false); err != nil {
		return nil, s.fail("asking for the pack", err)
	}
	if err := pktline.NewEncoder(s.in).EncodeString("done\n"); err != nil {
		return nil, s.fail("asking for the pack", err)
	}
	if err := s.in.Close(); err != nil && !errors.Is(err, io.EOF) {
		return nil, s.fail("asking for the pack", err)
	}
	s.b.next()
	res := packp.NewUploadPackResponse(req)
	if err := res.Decode(io.NopCloser(s.out)); err != nil {
		return nil, s.fail("reading the answer", err)
	}
	data, err := readPack(req, res, s.b)
	if err != nil {
		return nil, s.fail("reading the pack", err)
	}
	return data, nil
}

func (s *streamSession) close() {
	if !s.asked {
		// A polite end of the conversation; whether it arrives does not matter.
		_ = pktline.NewEncoder(s.in).Flush()
	}
	s.stop()
}
