// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/test/scripts/fits"
	"github.com/muster-fleet/muster/test/servers"
)

// TestScripts runs the real programs, musterd with the backend observe, on testdata/scripts/*.txtar. Besides
// testscript's own commands there is:
//
//	fits SCHEMA            holds the last output against docs/schema/cli/SCHEMA.json
//	answers SOCKET         waits until an agent answers there
//	reports SOCKET TEXT    waits until the agent's status, as JSON, holds the text; lacks, until it does not
//	registry VAR           starts a registry on loopback and sets VAR to its host:port
//	notify-socket          listens as a service manager does, for the agents started from now on
//	notified TEXT          waits until an agent tells it that
//	small-disk DIR         makes DIR a file system of half a megabyte; it takes root
//	told REPO TEXT         waits until a host's report in the status repository holds the text
//	deaf VAR               listens on loopback, answers nobody, and sets VAR to its host:port
//	connected              waits until somebody has connected there
//	events-agent SOCKET FILE   serves the event stream of an agent whose kernel the story is, and its event file
//	denies POLICY PATH     is an event of that kernel
//	followed               waits until somebody follows the events
//	appears FILE TEXT      waits until the file holds the text
//	hangup                 sends SIGHUP to what runs in the background
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
			e.Values[heard{}] = new(<-chan string)
			e.Values[knocks{}] = new(<-chan net.Conn)
			e.Values[streaming{}] = new(*eventAgent)
			e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			for _, who := range []string{"AUTHOR", "COMMITTER"} {
				e.Setenv("GIT_"+who+"_NAME", "Ada")
				e.Setenv("GIT_"+who+"_EMAIL", "ada@example.com")
			}
			return os.MkdirAll(home, 0o755)
		},
		Cmds: commands(), Condition: condition,
	})
}

func commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"answers":       answers,
		"fits":          fits.Command,
		"reports":       func(ts *testscript.TestScript, _ bool, args []string) { waitForReport(ts, args, true) },
		"lacks":         func(ts *testscript.TestScript, _ bool, args []string) { waitForReport(ts, args, false) },
		"registry":      registryCommand,
		"notify-socket": notifySocket,
		"notified":      notified,
		"hangup":        hangup,
		"small-disk":    smallDisk,
		"told":          told,
		"deaf":          deaf,
		"connected":     connected,
		"events-agent":  startEventAgent,
		"denies":        denies,
		"followed":      followed,
		"appears":       appears,
	}
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

// heard is the key under which a story keeps what its service manager is told.
type heard struct{}

// notifySocket is sd_notify(3)'s other side.
func notifySocket(ts *testscript.TestScript, _ bool, _ []string) {
	path := ts.MkAbs("notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	ts.Check(err)
	ts.Defer(func() { _ = socket.Close() })
	ts.Setenv("NOTIFY_SOCKET", path)
	told := make(chan string, 1024)
	go func() {
		defer close(told)
		buffer := make([]byte, 4096)
		for {
			n, err := socket.Read(buffer)
			if err != nil {
				return
			}
			told <- string(buffer[:n])
		}
	}()
	*ts.Value(heard{}).(*<-chan string) = told
}

func hangup(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGHUP))
	}
}

func notified(ts *testscript.TestScript, _ bool, args []string) {
	late := time.After(time.Minute)
	for {
		select {
		case text := <-*ts.Value(heard{}).(*<-chan string):
			if strings.HasPrefix(text, args[0]) {
				return
			}
		case <-late:
			ts.Fatalf("nobody said %s", args[0])
		}
	}
}

func registryCommand(ts *testscript.TestScript, _ bool, args []string) {
	server := httptest.NewServer(servers.Registry(true))
	ts.Defer(server.Close)
	ts.Setenv(args[0], strings.TrimPrefix(server.URL, "http://"))
}
