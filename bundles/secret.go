// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"syscall"
)

// maxSecret bounds a credential file.
const maxSecret = 64 << 10

// ReadSecret reads a file that only its owner (root or this user) may read. What it holds appears in no error.
func ReadSecret(path string) ([]byte, error) {
	info, err := os.Stat(path) // a link is fine: mounted secrets are links; what it leads to is checked
	if err != nil {
		return nil, err
	}
	if err := checkSecret(path, info); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return bytes.TrimSpace(data), nil
}

func checkSecret(path string, info fs.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("credentials: %s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("credentials: %s has mode %04o: others can read it (chmod 600)", path, info.Mode().Perm())
	case info.Size() == 0 || info.Size() > maxSecret:
		return fmt.Errorf("credentials: %s is empty or larger than %d bytes", path, maxSecret)
	}
	// It belongs to root or to the user that reads it.
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && st.Uid != 0 && int(st.Uid) != os.Getuid() {
		return fmt.Errorf("credentials: %s belongs to user %d", path, st.Uid)
	}
	return nil
}

// TLSFiles are what a connection is made with beyond the system's certificates.
type TLSFiles struct {
	CA          string // PEM certificates to believe instead of the system's
	Certificate string // this host's own certificate, PEM
	Key         string // its private key, PEM, readable by nobody else
}

// Config is the configuration of a client; nil when the system's is meant.
func (f TLSFiles) Config() (*tls.Config, error) {
	if f == (TLSFiles{}) {
		return nil, nil //nolint:nilnil // the zero configuration is the system's
	}
	if (f.Certificate == "") != (f.Key == "") {
		return nil, fmt.Errorf("credentials: a client certificate needs its key, and a key its certificate")
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		text, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("credentials: %s holds no certificate", f.CA)
		}
	}
	if f.Certificate == "" {
		return c, nil
	}
	// Read at each handshake, so that a renewed certificate is picked up.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.pair() }
	_, err := f.pair()
	return c, err
}

func (f TLSFiles) pair() (*tls.Certificate, error) {
	certificate, err := os.ReadFile(f.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := ReadSecret(f.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("credentials: %s and %s are no certificate and its key", f.Certificate, f.Key)
	}
	return &pair, nil
}

// ProxyFunc is how requests find their proxy: the named one, or the environment's.
func ProxyFunc(raw string) (func(*http.Request) (*url.URL, error), error) {
	if raw == "" {
		return http.ProxyFromEnvironment, nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return nil, errors.New("credentials: the proxy's URL is not understood")
	}
	if _, secret := u.User.Password(); secret {
		return nil, errors.New("credentials: the proxy's URL contains a password: leave it out and set HTTPS_PROXY in the service's environment file")
	}
	return http.ProxyURL(u), nil
}
