// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package scripts

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/muster-fleet/muster/test/scripts/fits"
	"github.com/muster-fleet/muster/test/servers"
)

// TestScripts runs every story. Besides testscript's own commands there are:
//
//	fits SCHEMA            holds the last output against docs/schema/cli/SCHEMA.json
//	sha256 FILE VAR        sets VAR to the file's sha256
//	subst FILE OLD NEW     replaces OLD by NEW in FILE, once; it must be there
//	registry VAR           starts a registry on loopback and sets VAR to its host:port
//	slow-git DIR VAR       serves the repository DIR over HTTP and sets VAR to its URL; a push is never answered
//	pushed                 waits until somebody pushed there
func TestScripts(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("git is not installed")
	}
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "muster"), "../../cmd/muster")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 ".",
		RequireExplicitExec: true,
		Setup:               func(e *testscript.Env) error { return setup(e, bin) },
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"fits":     fits.Command,
			"sha256":   cmdSHA256,
			"subst":    cmdSubst,
			"registry": cmdRegistry,
			"slow-git": cmdSlowGit,
			"pushed":   cmdPushed,
		},
	})
}

// setup gives a story a home of its own; nothing of the machine's configuration reaches git or muster.
func setup(e *testscript.Env, bin string) error {
	home := filepath.Join(e.WorkDir, "home")
	e.Values[pushes{}] = &pushed{}
	e.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	e.Setenv("HOME", home)
	e.Setenv("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
	e.Setenv("MUSTER_PASSWORD", "correct horse")
	e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		e.Setenv("GIT_"+who+"_NAME", "Ada")
		e.Setenv("GIT_"+who+"_EMAIL", "ada@example.com")
		e.Setenv("GIT_"+who+"_DATE", "2026-03-01T12:00:00Z")
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(home, ".gitconfig"), []byte("[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n"), 0o644)
}

func cmdSHA256(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sha256 FILE VAR")
	}
	sum := sha256.Sum256([]byte(ts.ReadFile(args[0])))
	ts.Setenv(args[1], hex.EncodeToString(sum[:]))
}

// cmdRegistry starts go-containerregistry's own registry: real HTTP, storage in memory.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: registry VAR")
	}
	server := httptest.NewServer(servers.Registry(true))
	ts.Defer(server.Close)
	ts.Setenv(args[0], strings.TrimPrefix(server.URL, "http://"))
}

// pushes is the key under which a story's slow server tells of pushes.
type pushes struct{}

// cmdSlowGit serves a repository with git's own http-backend, but keeps every push waiting.
func cmdSlowGit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: slow-git DIR VAR")
	}
	dir := ts.MkAbs(args[0])
	backend, err := servers.Git(filepath.Dir(dir), "ada")
	ts.Check(err)
	came, over := make(chan struct{}, 8), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/git-receive-pack") {
			came <- struct{}{}
			<-over
			return
		}
		backend.ServeHTTP(w, r)
	}))
	ts.Defer(server.Close)
	ts.Defer(func() { close(over) })
	ts.Value(pushes{}).(*pushed).came = came
	ts.Setenv(args[1], server.URL+"/"+filepath.Base(dir))
}

// pushed is what a story knows of its slow server.
type pushed struct{ came <-chan struct{} }

func cmdPushed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: pushed")
	}
	select {
	case <-ts.Value(pushes{}).(*pushed).came:
	case <-time.After(time.Minute):
		ts.Fatalf("nobody pushed")
	}
}

func cmdSubst(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: subst FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o644))
}
