// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/bundles"
)

// Credentials name files; their contents are read when they are used, so that a rotated secret is picked up,
// and never appear in an error or a log.
type Credentials struct {
	UsernameFile   string // HTTP basic; "git" when there is a password only
	PasswordFile   string // HTTP basic: a password or a forge's token
	TokenFile      string // HTTP bearer
	SSHKeyFile     string // private key in OpenSSH or PEM format, without a passphrase
	KnownHostsFile string // required for ssh
	CAFile         string // PEM certificates to believe instead of the system's
	ClientCertFile string // HTTP: this host's own certificate
	ClientKeyFile  string
	Proxy          string // HTTP: a proxy's URL; "" takes the environment's
}

var (
	errTwoWays    = errors.New("credentials: a password and a token contradict each other")
	errKnownHosts = errors.New("credentials: ssh needs knownHostsFile: a host key is never accepted unseen")
	errSSHKey     = errors.New("credentials: ssh needs sshKeyFile")
	errPlainHTTP  = errors.New("credentials over http:// would travel in the clear: use https:// or ssh://")
)

// check refuses what cannot work before any network is touched.
func (c Credentials) check(ep *transport.Endpoint) error {
	switch {
	case c.PasswordFile != "" && c.TokenFile != "":
		return errTwoWays
	case ep.Protocol == "ssh" && c.KnownHostsFile == "":
		return errKnownHosts
	case ep.Protocol == "ssh" && c.SSHKeyFile == "":
		return errSSHKey
	case ep.Protocol == "http" && (c.PasswordFile != "" || c.TokenFile != "") && !loopback(ep.Host):
		return errPlainHTTP
	}
	return nil
}

func loopback(host string) bool {
	return host == "localhost" || host == "127.0.0.1" || host == "[::1]" || host == "::1"
}

func (c Credentials) httpAuth() (transport.AuthMethod, error) {
	switch {
	case c.TokenFile != "":
		token, err := bundles.ReadSecret(c.TokenFile)
		if err != nil {
			return nil, err
		}
		return &githttp.TokenAuth{Token: string(token)}, nil
	case c.PasswordFile != "":
		password, err := bundles.ReadSecret(c.PasswordFile)
		if err != nil {
			return nil, err
		}
		user := []byte("git")
		if c.UsernameFile != "" {
			if user, err = os.ReadFile(c.UsernameFile); err != nil { // a name is no secret
				return nil, err
			}
		}
		return &githttp.BasicAuth{Username: string(bytes.TrimSpace(user)), Password: string(password)}, nil
	}
	return nil, nil //nolint:nilnil // no credentials is a way to authenticate
}

func (c Credentials) httpTransport() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = true // a poll a minute keeps no connection worth having
	t.ResponseHeaderTimeout = time.Minute
	config, err := bundles.TLSFiles{CA: c.CAFile, Certificate: c.ClientCertFile, Key: c.ClientKeyFile}.Config()
	if err != nil {
		return nil, err
	}
	t.TLSClientConfig = config
	t.Proxy, err = bundles.ProxyFunc(c.Proxy)
	return t, err
}

func (c Credentials) sshConfig(user, addr string) (*ssh.ClientConfig, error) {
	key, err := bundles.ReadSecret(c.SSHKeyFile)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(append(key, '\n'))
	if err != nil {
		if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
			return nil, fmt.Errorf("credentials: %s has a passphrase; a host needs a key without one", c.SSHKeyFile)
		}
		return nil, fmt.Errorf("credentials: %s is no private key", c.SSHKeyFile)
	}
	db, err := knownhosts.NewDB(c.KnownHostsFile)
	if err != nil {
		return nil, fmt.Errorf("credentials: known hosts: %w", err)
	}
	algorithms := db.HostKeyAlgorithms(addr)
	if len(algorithms) == 0 {
		return nil, fmt.Errorf("credentials: %s has no key of %s", c.KnownHostsFile, addr)
	}
	if user == "" {
		user = "git"
	}
	return &ssh.ClientConfig{
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   db.HostKeyCallback(),
		HostKeyAlgorithms: algorithms,
		Timeout:           time.Minute,
	}, nil
}

func explainSSH(err error) error {
	switch {
	case knownhosts.IsHostKeyChanged(err):
		return fmt.Errorf("the server's host key is not the one in known_hosts: %w", err)
	case knownhosts.IsHostUnknown(err):
		return fmt.Errorf("the server is not in known_hosts: %w", err)
	}
	return err
}

// Auth is the credentials for other users of go-git (the status repository), known_hosts included. It checks
// them against the URL first; nil means that none are needed.
func (c Credentials) Auth(rawURL string) (transport.AuthMethod, error) {
	ep, err := transport.NewEndpoint(rawURL)
	if err != nil {
		return nil, fmt.Errorf("the repository's URL is not understood: %w", err)
	}
	if err := c.check(ep); err != nil {
		return nil, err
	}
	return c.publisherAuth(ep)
}

// CABundle is the PEM certificates to believe, or nil for the system's.
func (c Credentials) CABundle() ([]byte, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	return os.ReadFile(c.CAFile)
}

// publisherAuth is what go-git's push takes. A person's ssh agent serves when no key file is named.
func (c Credentials) publisherAuth(ep *transport.Endpoint) (transport.AuthMethod, error) {
	switch ep.Protocol {
	case "ssh":
		if c.SSHKeyFile == "" {
			return nil, nil //nolint:nilnil // go-git's default: the agent and the user's known_hosts
		}
		if err := c.check(ep); err != nil {
			return nil, err
		}
		cfg, err := c.sshConfig(ep.User, sshAddress(ep))
		if err != nil {
			return nil, err
		}
		return sshAuth{cfg}, nil
	case "http", "https":
		if err := c.check(ep); err != nil {
			return nil, err
		}
		return c.httpAuth()
	}
	return nil, nil //nolint:nilnil // a file needs no credentials
}
