// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/bundles/oci"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/test/servers"
)

// agentVariable makes the test binary an agent with this configuration: a process of its own, whose writes can be told
// from the test's.
const agentVariable = "MUSTERD_TEST_CONFIG"

func TestMain(m *testing.M) {
	path := os.Getenv(agentVariable)
	if path == "" {
		m.Run()
		return
	}
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, []string{"--config", path}, os.Stdout, os.Stderr); err != nil {
		panic(err)
	}
}

// counted serves h and counts the requests.
func counted(t *testing.T, h http.Handler) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, requests
}

// channelOverHTTP is an empty channel, and where a host finds it.
func channelOverHTTP(t *testing.T, transport string) (ch bundles.Channel, url string, requests *atomic.Int64) {
	t.Helper()
	var err error
	if transport == "oci" {
		url, requests = counted(t, servers.Registry(true))
		url = "oci://" + strings.TrimPrefix(url, "http://") + "/acme/policy:stable"
		ch, err = oci.OpenChannel(oci.ChannelConfig{Reference: url, Channel: "stable", Now: time.Now})
	} else {
		dir := t.TempDir()
		if out, err := exec.CommandContext(t.Context(), "git", "init", "-q", "--bare", filepath.Join(dir, "policy.git")).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		backend, gitErr := servers.Git(dir, "")
		if gitErr != nil {
			t.Fatal(gitErr)
		}
		url, requests = counted(t, backend)
		url += "/policy.git"
		ch, err = git.OpenChannel(git.ChannelConfig{URL: "file://" + dir + "/policy.git", Channel: "stable"})
	}
	if err != nil {
		t.Fatal(err)
	}
	return ch, url, requests
}

func push(t *testing.T, ch bundles.Channel, files map[string][]byte) {
	t.Helper()
	tip, err := ch.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.Append(t.Context(), tip, files, "Release\n", time.Now()); err != nil {
		t.Fatal(err)
	}
}

// startAgent starts an agent of this binary that follows url and answers its process and a client of it.
func startAgent(t *testing.T, dir, url string, trust []byte) (int, *control.Client) {
	t.Helper()
	return startProgram(t, "/proc/self/exe", dir, url, trust)
}

func startProgram(t *testing.T, program, dir, url string, trust []byte) (int, *control.Client) {
	t.Helper()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	socket := filepath.Join(dir, "socket")
	path := write("musterd.yaml", fmt.Sprintf("trust: %s\nsource: {url: %q, interval: 24h}\nstateDir: %s/state\ncacheDir: %s/cache\nhostKey: %s/key/host\n"+
		"labels: %s\nsocket: %s\nbackend: observe\ndriftInterval: 24h\nevents: {output: none}\nmetrics: {socket: %s/metrics}\n",
		write("trust.yaml", string(trust)), url, dir, dir, dir, write("labels.yaml", "{}\n"), socket, dir))
	cmd := exec.Command(program, "--config", path)
	cmd.Env = append(os.Environ(), agentVariable+"="+path)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the agent: %v", err)
		}
	})
	client := control.NewClient(socket)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for tick := time.Tick(20 * time.Millisecond); ; {
		if _, err := client.Status(ctx); err == nil {
			return cmd.Process.Pid, client
		}
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatal("the agent does not answer")
		}
	}
}

func synced(t *testing.T, client *control.Client) *control.SyncResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got, err := client.Sync(ctx, control.SyncRequest{Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// written is how many bytes a process had written to storage, by the kernel's count.
func written(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("/proc/%d/io has no write_bytes", pid)
	return 0
}

// watched counts what happens to the files of a directory and of those below it, until it is asked.
func watched(t *testing.T, dir string) (events func() []string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	names := map[int32]string{}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		wd, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY|unix.IN_ATTRIB|unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVE|unix.IN_CLOSE_WRITE)
		names[int32(wd)] = path
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() []string {
		var out []string
		buf := make([]byte, 64<<10)
		for {
			n, err := unix.Read(fd, buf)
			if err != nil || n <= 0 {
				return out
			}
			for at := 0; at+unix.SizeofInotifyEvent <= n; {
				wd := int32(uint32(buf[at]) | uint32(buf[at+1])<<8 | uint32(buf[at+2])<<16 | uint32(buf[at+3])<<24)
				length := int(uint32(buf[at+12]) | uint32(buf[at+13])<<8 | uint32(buf[at+14])<<16 | uint32(buf[at+15])<<24)
				name := strings.TrimRight(string(buf[at+unix.SizeofInotifyEvent:at+unix.SizeofInotifyEvent+length]), "\x00")
				out = append(out, filepath.Join(names[wd], name))
				at += unix.SizeofInotifyEvent + length
			}
		}
	}
}

// TestUnchangedPoll: twenty looks at a source that has nothing new are twenty requests on the wire and not one write,
// by what the server counts, what happens to the agent's directories and what the kernel says that the agent wrote.
// A look that finds something shows that all three can tell.
func TestUnchangedPoll(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"git", "oci"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			f := bundlestest.New(t, "alice")
			dir := t.TempDir()
			ch, url, requests := channelOverHTTP(t, transport)
			push(t, ch, f.Release(t, 5, "alice"))
			pid, client := startAgent(t, dir, url, []byte(f.TrustYAML(t, 1, 1, "")))
			synced(t, client)
			push(t, ch, f.Release(t, 6, "alice"))
			events, wrote, asked := watched(t, dir), written(t, pid), requests.Load()
			if got := synced(t, client); len(got.Report.Releases) != 1 || got.Report.Releases[0].Sequence != 6 {
				t.Fatalf("%s: %+v", got.Outcome, got.Report)
			}
			// Where the temporary directory is in memory the kernel counts no write, and the events tell alone.
			first := events()
			if len(first) == 0 || requests.Load()-asked < 2 {
				t.Fatal("a look that finds a release changes no file or asks once: nothing here can tell")
			}
			t.Logf("a look that finds a release: %d events, %d bytes written", len(first), written(t, pid)-wrote)

			const looks = 20
			events, wrote, asked = watched(t, dir), written(t, pid), requests.Load()
			for range looks {
				synced(t, client)
			}
			if got := requests.Load() - asked; got != looks {
				t.Errorf("%d looks were %d requests", looks, got)
			}
			if got := written(t, pid) - wrote; got != 0 {
				t.Errorf("%d looks wrote %d bytes", looks, got)
			}
			if got := events(); len(got) != 0 {
				t.Errorf("%d looks changed %q", looks, got)
			}
		})
	}
}
