// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"github.com/muster-fleet/muster/bundles"
)

// remote is one repository and how to reach it.
type remote struct {
	endpoint *transport.Endpoint
	creds    Credentials
	shown    string // the URL as it may be shown
}

// session is one conversation with a remote.
type session interface {
	advert(ctx context.Context) (*packp.AdvRefs, error)
	pack(ctx context.Context, adv *packp.AdvRefs, ask order) ([]byte, error)
	close()
}

func newRemote(raw string, creds Credentials) (*remote, error) {
	if raw == "" {
		return nil, errors.New("the repository's URL is empty")
	}
	if u, err := url.Parse(raw); err == nil && u.User != nil {
		if _, hasPassword := u.User.Password(); hasPassword {
			return nil, errSecretInURL
		}
	}
	ep, err := transport.NewEndpoint(raw)
	if err != nil {
		return nil, fmt.Errorf("the repository's URL is not understood: %w", err)
	}
	switch ep.Protocol {
	case "http", "https", "ssh", "file":
	default:
		return nil, fmt.Errorf("the repository's URL has scheme %q; file, http(s) and ssh are served", ep.Protocol)
	}
	if err := creds.check(ep); err != nil {
		return nil, err
	}
	return &remote{endpoint: ep, creds: creds, shown: ShownURL(raw)}, nil
}

var errSecretInURL = errors.New("the repository's URL contains a password: put it into a file and name that file in the credentials")

func (r *remote) open(ctx context.Context, limits Limits) (session, error) {
	b := &budget{left: limits.Advert, what: "the ref advertisement", packLimit: limits.Pack}
	ep := *r.endpoint
	switch ep.Protocol {
	case "http", "https":
		return openHTTP(&ep, r.creds, b)
	case "ssh":
		return openSSH(ctx, &ep, r.creds, b)
	default:
		return openFile(ctx, &ep, b)
	}
}

// budget counts bytes read and refuses, by name, what exceeds it. go-git turns errors into text on the way,
// so the refusal is kept here and put in their place.
type budget struct {
	left      int64
	packLimit int64
	what      string
	refusal   error
}

func (b *budget) reader(r io.Reader) io.Reader { return &budgetReader{r: r, b: b} }

// next opens the budget of the pack.
func (b *budget) next() { b.left, b.what = b.packLimit, "the pack" }

func (b *budget) blame(err error) error {
	if err != nil && b.refusal != nil {
		return b.refusal
	}
	return err
}

type budgetReader struct {
	r io.Reader
	b *budget
}

func (r *budgetReader) Read(p []byte) (int, error) {
	if r.b.left <= 0 {
		r.b.refusal = bundles.NewRefusal(bundles.ErrLimits, nil, "%s is larger than the limit", r.b.what)
		return 0, r.b.refusal
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.b.left)])
	r.b.left -= int64(n)
	return n, err
}

// order is what is asked for: commits to a depth (0 is all of it), without what one commit has that is here already.
type order struct {
	wants []plumbing.Hash
	depth int
	have  plumbing.Hash
}

func packRequest(adv *packp.AdvRefs, ask order) (*packp.UploadPackRequest, error) {
	req := packp.NewUploadPackRequestFromCapabilities(adv.Capabilities)
	req.Wants = ask.wants
	if !ask.have.IsZero() {
		req.Haves = []plumbing.Hash{ask.have}
	}
	if ask.depth > 0 && adv.Capabilities.Supports(capability.Shallow) {
		req.Depth = packp.DepthCommits(ask.depth)
		req.Shallows = req.Haves // what was before it is not here
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return nil, err
		}
	}
	if adv.Capabilities.Supports(capability.NoProgress) {
		if err := req.Capabilities.Set(capability.NoProgress); err != nil {
			return nil, err
		}
	}
	return req, nil
}

// readPack takes the pack out of the response, out of its side band where there is one.
func readPack(req *packp.UploadPackRequest, res *packp.UploadPackResponse, b *budget) ([]byte, error) {
	var r io.Reader = res
	switch {
	case req.Capabilities.Supports(capability.Sideband64k):
		r = sideband.NewDemuxer(sideband.Sideband64k, res)
	case req.Capabilities.Supports(capability.Sideband):
		r = sideband.NewDemuxer(sideband.Sideband, res)
	}
	data, err := io.ReadAll(r)
	return data, b.blame(err)
}

// httpSession is go-git's HTTP client over a transport that counts.
type httpSession struct {
	up transport.UploadPackSession
	b  *budget
}

// countingTransport applies the budget to every response body, after any decompression.
type countingTransport struct {
	next http.RoundTripper
	b    *budget
}

func (t *countingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{t.b.reader(res.Body), res.Body}
	return res, nil
}

func openHTTP(ep *transport.Endpoint, creds Credentials, b *budget) (session, error) {
	base, err := creds.httpTransport()
	if err != nil {
		return nil, err
	}
	auth, err := creds.httpAuth()
	if err != nil {
		return nil, err
	}
	client := githttp.NewClient(&http.Client{Transport: &countingTransport{next: base, b: b}})
	up, err := client.NewUploadPackSession(ep, auth)
	if err != nil {
		base.CloseIdleConnections()
		return nil, err
	}
	return &httpSession{up: up, b: b}, nil
}

func (s *httpSession) advert(ctx context.Context) (*packp.AdvRefs, error) {
	adv, err := s.up.AdvertisedReferencesContext(ctx)
	return adv, s.b.blame(err)
}

func (s *httpSession) pack(ctx context.Context, adv *packp.AdvRefs, ask order) ([]byte, error) {
	req, err := packRequest(adv, ask)
	if err != nil {
		return nil, err
	}
	s.b.next()
	res, err := s.up.UploadPack(ctx, req)
	if err != nil {
		return nil, s.b.blame(err)
	}
	defer res.Close()
	return readPack(req, res, s.b)
}

func (s *httpSession) close() { _ = s.up.Close() }

func quote(path string) string { return "'" + strings.ReplaceAll(path, "'", "'\\''") + "'" }
