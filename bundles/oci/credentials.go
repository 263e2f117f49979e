// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/authn/github"
	"github.com/google/go-containerregistry/pkg/v1/google"

	"github.com/muster-fleet/muster/bundles"
)

// Credentials name files; they are read when a session with the registry begins, and again when the registry no
// longer accepts it, so that a rotated secret is picked up. What they hold appears in no error and no log.
type Credentials struct {
	// DockerConfigFile is a docker configuration, or a Kubernetes pull secret's .dockerconfigjson or .dockercfg.
	// Credential helpers that it names are run.
	DockerConfigFile string
	UsernameFile     string
	PasswordFile     string // a password or a forge's token, with the user name
	TokenFile        string // a registry's own bearer token
	CAFile           string // PEM certificates to believe instead of the system's
	ClientCertFile   string
	ClientKeyFile    string
	// Cloud asks a cloud for this machine's own credentials: "google", or "" for none. Other clouds have
	// credential helpers.
	Cloud string
	// Proxy is the proxy's URL; "" takes the environment's.
	Proxy string
	// Username and Password come from the environment, where CI keeps secrets.
	Username, Password string
	// Person reads the docker or podman configuration of whoever runs the command when nothing else is given.
	Person bool
}

var (
	errTwoWays = errors.New("credentials: a docker configuration, a password, a token and a cloud contradict each other: give one")
	errCloud   = errors.New(`credentials: cloud is "google", for registries of Google; other clouds have credential helpers for a docker configuration`)
	errPlain   = errors.New("credentials over plain HTTP would travel in the clear")
)

// check refuses what cannot work before any network is touched.
func (c *Credentials) check(ref *Reference) error {
	ways := 0
	for _, v := range []string{c.DockerConfigFile, c.PasswordFile, c.TokenFile, c.Cloud} {
		if v != "" {
			ways++
		}
	}
	switch {
	case ways > 1:
		return errTwoWays
	case c.UsernameFile != "" && c.PasswordFile == "":
		return errors.New("credentials: a user name needs a passwordFile")
	case c.Cloud != "" && (c.Cloud != "google" || !ofGoogle(ref.repo.RegistryStr())):
		return errCloud
	case ways > 0 && ref.plain && !loopback(hostOf(ref.repo.RegistryStr())):
		return errPlain
	}
	_, err := bundles.ProxyFunc(c.Proxy)
	return err
}

// ofGoogle says whether a machine's Google token may be shown to this registry.
func ofGoogle(host string) bool {
	return host == "gcr.io" || strings.HasSuffix(host, ".gcr.io") || strings.HasSuffix(host, ".pkg.dev")
}

func (c *Credentials) tls() bundles.TLSFiles {
	return bundles.TLSFiles{CA: c.CAFile, Certificate: c.ClientCertFile, Key: c.ClientKeyFile}
}

// keychain implements authn.ContextKeychain for one registry.
type keychain struct{ c *Credentials }

// Resolve implements authn.Keychain.
func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

// ResolveContext answers what to authenticate with.
func (k keychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	switch c := k.c; {
	case c.DockerConfigFile != "":
		return fromDockerConfig(ctx, c.DockerConfigFile, r)
	case c.TokenFile != "":
		token, err := bundles.ReadSecret(c.TokenFile)
		return authn.FromConfig(authn.AuthConfig{RegistryToken: string(token)}), err
	case c.PasswordFile != "":
		return c.basic()
	case c.Cloud == "google":
		// The file of GOOGLE_APPLICATION_CREDENTIALS or the machine's metadata service; never a gcloud command.
		return google.NewEnvAuthenticator(context.WithoutCancel(ctx)) // it renews its token later
	case c.Password != "":
		return authn.FromConfig(authn.AuthConfig{Username: c.Username, Password: c.Password}), nil
	case c.Person:
		return authn.Resolve(ctx, authn.NewMultiKeychain(authn.DefaultKeychain, github.Keychain), r)
	}
	return authn.Anonymous, nil
}

func (c *Credentials) basic() (authn.Authenticator, error) {
	password, err := bundles.ReadSecret(c.PasswordFile)
	if err != nil {
		return nil, err
	}
	user := []byte("muster") // forges that take a token as the password ignore the name, but want one
	if c.UsernameFile != "" {
		if user, err = os.ReadFile(c.UsernameFile); err != nil { // a name is no secret
			return nil, err
		}
	}
	return authn.FromConfig(authn.AuthConfig{Username: string(bytes.TrimSpace(user)), Password: string(password)}), nil
}
