// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/muster-fleet/muster/bundles"
)

// dockerConfig is what is read of a docker configuration. Docker's own reader looks into home directories and runs
// helpers without a time limit, neither of which an agent may.
type dockerConfig struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredHelpers map[string]string     `json:"credHelpers"`
	CredsStore  string                `json:"credsStore"`
}

type dockerAuth struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

func fromDockerConfig(ctx context.Context, path string, r authn.Resource) (authn.Authenticator, error) {
	text, err := bundles.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	c, err := parseDockerConfig(text)
	if err != nil {
		return nil, fmt.Errorf("credentials: %s: %w", path, err)
	}
	a, err := c.resolve(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("credentials: %s: %w", path, err)
	}
	return a, nil
}

var errDockerConfig = errors.New("it is no docker configuration")

// parseDockerConfig reads a docker configuration, or the older .dockercfg, whose top level is the registries. What
// is wrong with it is not quoted: it holds passwords.
func parseDockerConfig(text []byte) (*dockerConfig, error) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(text, &top); err != nil {
		return nil, errDockerConfig
	}
	c := &dockerConfig{}
	var err error
	if top["auths"] == nil && top["credHelpers"] == nil && top["credsStore"] == nil {
		err = json.Unmarshal(text, &c.Auths)
	} else {
		err = json.Unmarshal(text, c)
	}
	if err != nil {
		return nil, errDockerConfig
	}
	return c, nil
}

// resolve finds the entry for a repository: the longest key that is its registry or a path above it.
func (c *dockerConfig) resolve(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	if helper := best(c.CredHelpers, r); helper != "" {
		return askHelper(ctx, c.CredHelpers[helper], r.RegistryStr())
	}
	if key := best(c.Auths, r); key != "" {
		if a := c.Auths[key]; a != (dockerAuth{}) {
			return a.authenticator()
		}
	}
	if c.CredsStore != "" {
		return askHelper(ctx, c.CredsStore, r.RegistryStr())
	}
	return authn.Anonymous, nil
}

func best[V any](entries map[string]V, r authn.Resource) string {
	found, length := "", -1
	for key := range entries {
		k := strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
		k = strings.TrimSuffix(k, "/")
		for _, version := range []string{"/v1", "/v2"} {
			k = strings.TrimSuffix(k, version)
		}
		if k == "docker.io" {
			k = name.DefaultRegistry
		}
		if (k == r.String() || strings.HasPrefix(r.String(), k+"/")) && len(k) > length {
			found, length = key, len(k)
		}
	}
	return found
}

func (a dockerAuth) authenticator() (authn.Authenticator, error) {
	if a.Auth != "" {
		pair, err := base64.StdEncoding.DecodeString(a.Auth)
		user, password, ok := strings.Cut(strings.TrimRight(string(pair), "\x00"), ":")
		if err != nil || !ok {
			return nil, errDockerConfig
		}
		a.Username, a.Password = user, password
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}), nil
}

const (
	helperPrefix = "docker-credential-"
	helperTime   = 30 * time.Second
	helperOutput = 64 << 10
)

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// askHelper runs a credential helper: a program of a fixed name with a fixed argument, the registry on its input,
// no shell, a time limit. What it prints is never repeated.
func askHelper(ctx context.Context, helper, registry string) (authn.Authenticator, error) {
	if !helperName.MatchString(helper) {
		return nil, errors.New("the name of its credential helper is not one")
	}
	path, err := exec.LookPath(helperPrefix + helper)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", helperPrefix, helper, errors.Unwrap(err))
	}
	if registry == name.DefaultRegistry {
		registry = authn.DefaultAuthKey
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "get")
	cmd.Stdin = strings.NewReader(registry)
	cmd.WaitDelay = time.Second // a grandchild that keeps the pipe open does not keep us
	out := &limited{left: helperOutput}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		if strings.Contains(out.kept.String(), "credentials not found") { // the protocol's way to say: I have none
			return authn.Anonymous, nil
		}
		return nil, fmt.Errorf("the credential helper %s failed: %w", helper, err)
	}
	var answer struct{ Username, Secret string }
	if json.Unmarshal(out.kept.Bytes(), &answer) != nil || answer.Secret == "" {
		return nil, fmt.Errorf("the credential helper %s gave no credentials", helper)
	}
	if answer.Username == "<token>" {
		return authn.FromConfig(authn.AuthConfig{IdentityToken: answer.Secret}), nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: answer.Username, Password: answer.Secret}), nil
}

// limited keeps a beginning and refuses the rest. It does not embed the buffer, whose ReadFrom knows no limit.
type limited struct {
	kept bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, io.ErrShortWrite
	}
	l.left -= len(p)
	return l.kept.Write(p)
}
