// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/muster-fleet/muster/reconciler/control"
)

// TestScripts runs the real programs, musterd with the backend observe, on testdata/scripts/*.txtar. Besides
// testscript's own commands there is:
//
//	answers SOCKET         waits until an agent answers there
//	reports SOCKET TEXT    waits until the agent's status, as JSON, holds the text; lacks, until it does not
//	registry VAR           starts a registry on loopback and sets VAR to its host:port
func TestScripts(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	for _, name := range []string{"muster", "musterd"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, name), "github.com/muster-fleet/muster/cmd/"+name)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/scripts",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
			e.Setenv("HOME", home)
			e.Setenv("MUSTER_PASSWORD", "correct horse")
			e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			for _, who := range []string{"AUTHOR", "COMMITTER"} {
				e.Setenv("GIT_"+who+"_NAME", "Ada")
				e.Setenv("GIT_"+who+"_EMAIL", "ada@example.com")
			}
			return os.MkdirAll(home, 0o755)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"answers":  answers,
			"reports":  func(ts *testscript.TestScript, _ bool, args []string) { waitForReport(ts, args, true) },
			"lacks":    func(ts *testscript.TestScript, _ bool, args []string) { waitForReport(ts, args, false) },
			"registry": registryCommand,
		},
	})
}

func answers(ts *testscript.TestScript, _ bool, args []string) {
	client := control.NewClient(ts.MkAbs(args[0]))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := client.Status(ctx); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("no agent on %s", args[0])
		case <-tick.C:
		}
	}
}

func waitForReport(ts *testscript.TestScript, args []string, want bool) {
	client := control.NewClient(ts.MkAbs(args[0]))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last []byte
	for {
		if status, err := client.Status(ctx); err == nil {
			last, err = json.MarshalIndent(status, "", "  ")
			ts.Check(err)
			if bytes.Contains(last, []byte(args[1])) == want {
				return
			}
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("waited for %q (%v) in\n%s", args[1], want, last)
		case <-tick.C:
		}
	}
}

func registryCommand(ts *testscript.TestScript, _ bool, args []string) {
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	ts.Defer(server.Close)
	ts.Setenv(args[0], strings.TrimPrefix(server.URL, "http://"))
}
