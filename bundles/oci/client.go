// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/muster-fleet/muster/bundles"
)

// client is one authenticated conversation with a registry: the token that was got for the first request serves all
// others until the registry wants another.
type client struct {
	repo    name.Repository
	guard   *guard
	puller  *remote.Puller
	options []remote.Option
	worked  bool // the registry accepted what we are
	noHead  bool // it answers HEAD in a way that is of no use
}

func newClient(ref *Reference, creds *Credentials, now func() time.Time) (*client, error) {
	tlsConfig, err := creds.tls().Config()
	if err != nil {
		return nil, err
	}
	proxy, err := bundles.ProxyFunc(creds.Proxy)
	if err != nil {
		return nil, err
	}
	g := newGuard(ref, tlsConfig, proxy, now)
	c := &client{repo: ref.repo, guard: g, options: []remote.Option{
		remote.WithTransport(g), remote.WithAuthFromKeychain(keychain{creds}), remote.WithUserAgent("muster"),
		// Who repeats a request, and when, is the agent's loop to decide.
		remote.WithRetryPredicate(func(error) bool { return false }), remote.WithRetryStatusCodes(),
	}}
	c.puller, err = remote.NewPuller(c.options...)
	return c, err
}

func (c *client) close() { c.guard.base.CloseIdleConnections() }

func (c *client) byTag(tag string) name.Reference { return c.repo.Tag(tag) }

func (c *client) byDigest(digest string) name.Digest { return c.repo.Digest(digest) }

// head resolves a reference with one request. A registry that does not answer HEAD properly is asked with GET from
// then on; one that refuses, throttles or fails is not asked again.
func (c *client) head(ctx context.Context, ref name.Reference) (string, error) {
	ctx, b := withBudget(ctx, "the answer about "+ref.Identifier(), pollRequests, maxManifest)
	if !c.noHead {
		d, err := c.puller.Head(ctx, ref)
		if err == nil {
			return checkedDigest(d.Digest)
		}
		if !uselessHead(err) || ctx.Err() != nil {
			return "", b.blame(err)
		}
	}
	d, err := c.puller.Get(ctx, ref)
	if err != nil {
		return "", b.blame(err)
	}
	c.noHead = true
	return checkedDigest(d.Digest)
}

func checkedDigest(h v1.Hash) (string, error) {
	if h.Algorithm != "sha256" {
		return "", bundles.NewRefusal(bundles.ErrMalformed, nil, "the registry answers with a digest that is no sha256")
	}
	return h.String(), nil
}

// uselessHead tells an answer without a digest, or a registry without HEAD, from every real failure.
func uselessHead(err error) bool {
	if status := statusOf(err); status != 0 {
		return status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented
	}
	var network *url.Error
	return !errors.As(err, &network) && bundles.RefusalName(err) == "" && !errors.As(err, new(*WaitError))
}

func statusOf(err error) int {
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		return answer.StatusCode
	}
	return 0
}

func notThere(err error) bool { return statusOf(err) == http.StatusNotFound }

// rejected says that the registry does not accept who we are (any more).
func rejected(err error) bool {
	s := statusOf(err)
	return s == http.StatusUnauthorized || s == http.StatusForbidden
}

// manifest reads a manifest, by tag or by digest; the digest is checked by the library.
func (c *client) manifest(ctx context.Context, ref name.Reference) (rawManifest, error) {
	ctx, b := withBudget(ctx, "the manifest "+ref.Identifier(), pollRequests, maxManifest)
	d, err := c.puller.Get(ctx, ref)
	if err != nil {
		return nil, b.blame(wrongBytes(err))
	}
	return d.Manifest, nil
}

// blob reads a blob through f, which must read to the end: the digest is known to be right only there.
func (c *client) blob(ctx context.Context, d v1.Descriptor, f func(io.Reader) error) error {
	const slack = 64 << 10 // of redirects on the way
	ctx, b := withBudget(ctx, "the blob "+d.Digest.String(), pollRequests, d.Size+slack)
	layer, err := c.puller.Layer(ctx, c.byDigest(d.Digest.String()))
	if err != nil {
		return b.blame(err)
	}
	r, err := layer.Compressed()
	if err != nil {
		return b.blame(wrongBytes(err))
	}
	defer r.Close()
	return b.blame(wrongBytes(f(r)))
}

func (c *client) bytes(ctx context.Context, d v1.Descriptor, most int64) ([]byte, error) {
	if d.Size > most {
		return nil, bundles.NewRefusal(bundles.ErrLimits, nil, "%s has %d bytes, more than %d", d.Digest, d.Size, most)
	}
	var data []byte
	err := c.blob(ctx, d, func(r io.Reader) (err error) {
		data, err = io.ReadAll(r)
		return err
	})
	if err == nil && int64(len(data)) != d.Size {
		err = bundles.NewRefusal(bundles.ErrAltered, bundles.ErrWire, "%s has %d bytes, not the %d of its manifest", d.Digest, len(data), d.Size)
	}
	return data, err
}

// wrongBytes names what the library says without a type: that bytes are not those of their digest or size.
func wrongBytes(err error) error {
	var network interface{ Timeout() bool }
	switch {
	case err == nil, bundles.RefusalName(err) != "", statusOf(err) != 0, errors.As(err, new(*WaitError)),
		errors.Is(err, context.Canceled), errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	return bundles.NewRefusal(bundles.ErrAltered, wire(err), "the registry sent other bytes than were asked for")
}

// wire marks an error as one of the way: the next try may bring the right bytes.
func wire(err error) error { return fmt.Errorf("%w: %w", bundles.ErrWire, err) }

// explained is an error with the reference beside it and what the registry said cut to a length. The query of a
// redirect, where object stores put their signatures, is left out.
type explained struct {
	ref *Reference
	err error
}

func explain(ref *Reference, err error) error {
	if err == nil || bundles.RefusalName(err) != "" {
		return err
	}
	return &explained{ref, err}
}

func (e *explained) Error() string {
	text := e.err.Error()
	if network, ok := errors.AsType[*url.Error](e.err); ok {
		where, _, _ := strings.Cut(network.URL, "?")
		text = fmt.Sprintf("%s %s: %v", strings.ToUpper(network.Op), where, network.Err)
	}
	return fmt.Sprintf("%s: %s", e.ref, clip(text))
}

// Unwrap answers the library's error.
func (e *explained) Unwrap() error { return e.err }

// Stalled says that a person is needed: credentials that are refused do not mend by waiting.
func (e *explained) Stalled() bool { return rejected(e.err) }

// Hint is what the operator can do.
func (e *explained) Hint() string {
	switch {
	case rejected(e.err):
		return "check the credentials for the registry, and that they may read this repository"
	case statusOf(e.err) == http.StatusTooManyRequests:
		return "the registry throttles this host: look less often, or put a mirror in front"
	}
	return ""
}
