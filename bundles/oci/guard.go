// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/muster-fleet/muster/bundles"
)

// guard stands between the registry library and the network. It counts requests and bytes, honours Retry-After,
// refuses plain HTTP that nobody asked for, and refuses to be led by a redirect or an authentication realm into
// networks that the registry itself is not in.
type guard struct {
	registry string // host:port
	plain    bool
	base     *http.Transport
	now      func() time.Time
	reach    atomic.Int32 // the registry's own reach, when it was dialled
	proxies  sync.Map     // host:port of proxies that the operator named

	mu    sync.Mutex
	until time.Time // no request before
}

// reach is how far an address is from this host.
type reach int32

const (
	public    reach = iota // anywhere
	private                // RFC 1918, RFC 4193, shared address space
	local                  // this machine
	linkLocal              // metadata services live here; also multicast and unspecified
)

func reachOf(ip netip.Addr) reach {
	ip = ip.Unmap()
	shared := netip.MustParsePrefix("100.64.0.0/10")
	switch {
	case ip.IsLoopback():
		return local
	case ip.IsLinkLocalUnicast(), ip.IsMulticast(), ip.IsUnspecified(), ip == netip.MustParseAddr("fd00:ec2::254"):
		return linkLocal
	case ip.IsPrivate(), shared.Contains(ip):
		return private
	}
	return public
}

// maxWait bounds what a registry can ask for: a host that it could silence for good would be frozen.
const maxWait = time.Hour

// maxHeader bounds the headers of one answer.
const maxHeader = 64 << 10

func newGuard(ref *Reference, tlsConfig *tls.Config, proxy func(*http.Request) (*url.URL, error), now func() time.Time) *guard {
	port := "443"
	if ref.repo.Scheme() == "http" {
		port = "80"
	}
	g := &guard{registry: withPort(ref.repo.RegistryStr(), port), plain: ref.plain, now: now}
	g.base = &http.Transport{
		Proxy: func(req *http.Request) (*url.URL, error) {
			u, err := proxy(req)
			if u != nil {
				g.proxies.Store(withPort(u.Host, map[string]string{"https": "443", "socks5": "1080"}[u.Scheme]), true)
			}
			return u, err
		},
		DialContext:            g.dial,
		TLSClientConfig:        tlsConfig,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // what a registry sends is what its digest is of
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        time.Minute,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  time.Minute,
		MaxResponseHeaderBytes: maxHeader,
	}
	return g
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(host, port)
}

func (g *guard) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 30 * time.Second, ControlContext: func(_ context.Context, _, got string, _ syscall.RawConn) error {
		return g.admit(addr, got)
	}}
	return d.DialContext(ctx, network, addr)
}

// admit decides on an address after its name was resolved, so that no name hides where it leads.
func (g *guard) admit(asked, got string) error {
	ap, err := netip.ParseAddrPort(got)
	if err != nil {
		return err
	}
	at := reachOf(ap.Addr())
	if asked == g.registry || hostOf(asked) == hostOf(g.registry) {
		g.reach.Store(int32(at))
		return nil
	}
	if _, named := g.proxies.Load(asked); named {
		return nil
	}
	own := reach(g.reach.Load())
	if at == linkLocal || at == local && own != local || at == private && own == public {
		return bundles.NewRefusal(bundles.ErrElsewhere, bundles.ErrWire, "%s leads to %s, which the registry has no business with", asked, ap.Addr())
	}
	return nil
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	b := budgetOf(req.Context())
	if err := errors.Join(g.tooEarly(), g.checkScheme(req.URL), b.request()); err != nil {
		return nil, err
	}
	res, err := g.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	g.heed(res)
	res.Body = &boundedBody{ReadCloser: res.Body, b: b}
	return res, nil
}

func (g *guard) checkScheme(u *url.URL) error {
	if u.Scheme == "https" || g.plain && u.Scheme == "http" {
		return nil
	}
	return bundles.NewRefusal(bundles.ErrElsewhere, bundles.ErrWire, "%s://%s: plain HTTP is only for loopback, or when the source's URL begins with oci+http://", u.Scheme, u.Host)
}

// WaitError says that the registry asked to be left alone for a while.
type WaitError struct{ Until time.Time }

func (e *WaitError) Error() string {
	return "the registry asked to wait until " + e.Until.UTC().Format(time.RFC3339)
}

func (g *guard) tooEarly() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now().Before(g.until) {
		return &WaitError{Until: g.until}
	}
	return nil
}

// heed remembers for how long the registry wants no more requests.
func (g *guard) heed(res *http.Response) {
	if res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusServiceUnavailable {
		return
	}
	wait, ok := retryAfter(res.Header.Get("Retry-After"), g.now())
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = g.now().Add(min(max(wait, 0), maxWait))
}

func retryAfter(value string, now time.Time) (time.Duration, bool) {
	if n, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(n, 0), int(maxWait/time.Second))) * time.Second, true
	}
	if t, err := http.ParseTime(value); err == nil {
		return t.Sub(now), true
	}
	return 0, false
}

// budget bounds one operation: its requests and the bytes of all answers.
type budget struct {
	what     string
	requests atomic.Int64
	bytes    atomic.Int64
	mu       sync.Mutex
	refusal  error
}

type budgetKey struct{}

// withBudget gives the requests under ctx a budget of their own.
func withBudget(ctx context.Context, what string, requests, bytes int64) (context.Context, *budget) {
	b := &budget{what: what}
	b.requests.Store(requests)
	b.bytes.Store(bytes)
	return context.WithValue(ctx, budgetKey{}, b), b
}

func budgetOf(ctx context.Context) *budget {
	if b, ok := ctx.Value(budgetKey{}).(*budget); ok {
		return b
	}
	b := &budget{what: "an unbounded request"} // admits nothing
	return b
}

func (b *budget) request() error {
	if b.requests.Add(-1) < 0 {
		return b.refuse("%s takes more requests than are allowed (redirects or challenges without end)", b.what)
	}
	return nil
}

func (b *budget) refuse(format string, args ...any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refusal == nil {
		b.refusal = bundles.NewRefusal(bundles.ErrLimits, bundles.ErrWire, format, args...)
	}
	return b.refusal
}

// blame puts the refusal in the place of whatever the library made of it.
func (b *budget) blame(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil && b.refusal != nil {
		return b.refusal
	}
	return err
}

type boundedBody struct {
	io.ReadCloser
	b *budget
}

func (r *boundedBody) Read(p []byte) (int, error) {
	left := r.b.bytes.Load()
	if left < 0 {
		return 0, r.b.refuse("%s is larger than the limit", r.b.what)
	}
	// One byte more than is allowed may be read: that one tells an answer that is too long from one that just fits.
	n, err := r.ReadCloser.Read(p[:min(int64(len(p)), left+1)])
	if r.b.bytes.Add(-int64(n)) < 0 {
		return 0, r.b.refuse("%s is larger than the limit", r.b.what)
	}
	return n, err
}

var _ http.RoundTripper = (*guard)(nil)
