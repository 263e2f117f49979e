// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package servers serves repositories and artifacts to tests: Git's own http-backend, and go-containerregistry's own
// registry with its storage in memory. Both speak real HTTP to whoever asks.
package servers

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Git serves the repositories in a directory with git http-backend. user is who the requests are by: without one nobody
// may push, unless a repository's configuration says so.
func Git(root, user string) (http.Handler, error) {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("git --exec-path: %w", err)
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"), Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	if user != "" {
		backend.Env = append(backend.Env, "REMOTE_USER="+user)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// http-backend needs a content length; go-git sends chunks.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		backend.ServeHTTP(w, r)
	}), nil
}

// Registry is an empty registry, with the referrers API or without it.
func Registry(referrers bool) http.Handler {
	return registry.New(registry.WithReferrersSupport(referrers), registry.Logger(log.New(io.Discard, "", 0)))
}
