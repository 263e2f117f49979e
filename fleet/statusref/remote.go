// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package statusref moves signed reports through Git: every host pushes one parentless commit to a ref of its
// own, so no two hosts ever contend, and a collector folds those refs into the branch "status".
//
// It speaks the Git protocol through go-git's transport sessions rather than its porcelain: a push names the
// exact old hash it expects, which the server compares and swaps, nothing is ever checked out, and everything
// fetched stays in memory within limits. Trust is none of its business: package fleet verifies what arrives.
//
// Limits: go-git v5 speaks protocol v0 only, so each fetch and push carries the whole ref advertisement
// (about 70 bytes a ref). Status therefore lives in a repository of its own.
package statusref

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/client"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"github.com/muster-fleet/muster/fleet"
)

// Where the refs of hosts lie. A forge that refuses refs outside refs/heads needs PrefixHeads.
const (
	PrefixHosts = "refs/muster/hosts"
	PrefixHeads = "refs/heads/muster-hosts"
)

// StatusBranch is the branch that people and agents read.
const StatusBranch plumbing.ReferenceName = "refs/heads/status"

// maxResponse bounds every single HTTP response, advertisements included.
const maxResponse = 512 << 20

// ErrLimits says that a remote holds more than a reader is willing to take.
var ErrLimits = errors.New("more than the limit")

// Remote is the repository that holds the fleet's status.
type Remote struct {
	// URL is anything Git knows: https, ssh, file, or a path.
	URL string
	// Auth is go-git's way to log in; nil for none.
	Auth transport.AuthMethod
	// CABundle is PEM added to the system's authorities for https.
	CABundle []byte
	// Prefix is PrefixHosts unless set.
	Prefix string
}

// HostRef is the one ref that a host writes.
func (r Remote) HostRef(id string) plumbing.ReferenceName {
	return plumbing.ReferenceName(r.prefix() + "/" + fleet.Shard(id) + "/" + id)
}

func (r Remote) prefix() string {
	if r.Prefix == "" {
		return PrefixHosts
	}
	return strings.TrimSuffix(r.Prefix, "/")
}

// hostOfRef is the inverse of HostRef; "" for every other ref.
func (r Remote) hostOfRef(ref plumbing.ReferenceName) string {
	rest, ok := strings.CutPrefix(string(ref), r.prefix()+"/")
	if !ok {
		return ""
	}
	_, id, ok := strings.Cut(rest, "/")
	if !ok || strings.Contains(id, "/") || r.HostRef(id) != ref {
		return ""
	}
	return id
}

// dial opens the transport. For http it is one of ours: its own TLS roots, every response bounded.
func (r Remote) dial() (transport.Transport, *transport.Endpoint, error) {
	ep, err := transport.NewEndpoint(r.URL)
	if err != nil {
		return nil, nil, fmt.Errorf("status repository: %w", err)
	}
	if ep.Protocol != "http" && ep.Protocol != "https" {
		t, err := client.NewClient(ep)
		return t, ep, err
	}
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		base = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	base = base.Clone()
	// One conversation is two requests; its connection should not outlive it.
	base.IdleConnTimeout, base.MaxIdleConnsPerHost = 2*time.Second, 1
	if len(r.CABundle) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(r.CABundle) {
			return nil, nil, errors.New("status repository: the CA bundle holds no certificate")
		}
		base.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return githttp.NewClient(&http.Client{Transport: boundedTransport{base}}), ep, nil
}

// boundedTransport ends a response that never ends.
type boundedTransport struct{ base *http.Transport }

func (b boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	res.Body = &boundedBody{ReadCloser: res.Body, left: maxResponse}
	return res, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: response of more than %d bytes", ErrLimits, int64(maxResponse))
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
