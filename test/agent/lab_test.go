// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/reconciler/events"
	"github.com/muster-fleet/muster/test/vm"
)

// Where the agents lie in the guest: two versions, whose programs count as different builds.
const (
	agentOne = "/usr/local/sbin/musterd"
	agentTwo = "/usr/local/sbin/musterd-two"
	unitFile = "/usr/local/lib/musterd.service"
)

// testLimit is far above what all of this takes, the long measurements included.
const testLimit = time.Hour

// TestInVM runs the tests of this file inside each kernel.
func TestInVM(t *testing.T) {
	t.Parallel()
	vm.Need(t)
	files := map[string]string{"../../deploy/musterd.service": unitFile}
	for guest, extra := range map[string][]string{agentOne: nil, agentTwo: {"-overlay", otherBuild(t)}} {
		target := filepath.Join(t.TempDir(), filepath.Base(guest))
		args := append(extra, "-ldflags=-s -w -X main.version="+filepath.Base(guest), "github.com/muster-fleet/muster/cmd/musterd")
		if err := vm.BuildStatic(t.Context(), target, "build", args...); err != nil {
			t.Fatal(err)
		}
		files[target] = guest
	}
	vm.TestPackage(t, vm.Options{LSM: vm.BPF, TestLimit: testLimit, Files: files}, "-test.v")
}

// otherBuild overlays the BPF object with one of the same programs and another digest: an agent built with it
// adopts nothing of the other's, but replaces every link, as after an upgrade.
func otherBuild(t *testing.T) string {
	t.Helper()
	object, err := filepath.Abs("../../bpf/muster_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(object)
	if err != nil {
		t.Fatal(err)
	}
	other, overlay := filepath.Join(t.TempDir(), "other.o"), filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(other, append(content, 0), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {object: other}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}

// lab is a world with a real agent and a real kernel.
type lab struct {
	*world
	agent  *exec.Cmd
	client *control.Client
	events string
	bpffs  string
	// files holds what policies are about. It is left to the machine's end: what is blocked cannot be removed.
	files string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	w := newWorld(t)
	w.fleet = strings.ToLower(t.Name()) // the kernel remembers what a fleet's host accepted, from test to test
	l := &lab{world: w, events: filepath.Join(w.dir, "events.jsonl"), bpffs: "/sys/fs/bpf/muster"}
	var err error
	l.files, err = os.MkdirTemp("", "muster-lab-")
	w.must(err)
	w.must(os.WriteFile(filepath.Join(w.dir, "trust.yaml"), w.trustText(), 0o600))
	socket := filepath.Join(w.dir, "musterd.sock")
	l.client = control.NewClient(socket)
	text := fmt.Sprintf(`source: {url: "file://%s", interval: 1s, jitter: 0s}
trust: %[2]s/trust.yaml
stateDir: %[2]s/state
cacheDir: %[2]s/state/cache
hostKey: %[2]s/state/host.key
socket: %[3]s
labels: ""
driftInterval: 2s
events: {output: file, file: %[4]s}
metrics: {socket: %[2]s/metrics.sock}
backend: bpflsm
bpffs: %[5]s
`, w.repo(), w.dir, socket, l.events, l.bpffs)
	w.must(os.WriteFile(l.config(), []byte(text), 0o600))
	t.Cleanup(l.leave)
	return l
}

// capabilities are those that the systemd unit bounds the agent to.
func capabilities(t *testing.T) []string {
	t.Helper()
	unit, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(unit)) {
		if names, found := strings.CutPrefix(line, "CapabilityBoundingSet="); found {
			return strings.Fields(strings.ReplaceAll(strings.ToLower(names), "cap_", ""))
		}
	}
	t.Fatal("the unit bounds no capabilities")
	return nil
}

// bounded is the agent's command with these capabilities and no others, and hardly any memory that it may lock: maps
// are accounted to the control group on every kernel that the agent runs on.
func bounded(names []string, binary, config string) *exec.Cmd {
	return exec.Command("/usr/bin/prlimit", "--memlock=65536", "/usr/bin/setpriv", "--bounding-set", "-all,+"+strings.Join(names, ",+"),
		"--no-new-privs", binary, "--config", config)
}

func (l *lab) config() string { return filepath.Join(l.dir, "musterd.yaml") }

// run starts the agent with the capabilities of the systemd unit and waits until it answers.
func (l *lab) run(binary string) {
	l.t.Helper()
	l.runWith(binary, capabilities(l.t))
}

func (l *lab) runWith(binary string, names []string) {
	l.t.Helper()
	l.agent = bounded(names, binary, l.config())
	l.agent.WaitDelay = 10 * time.Second // a child of a killed agent may still hold its output
	l.agent.Stderr = l.t.Output()
	l.agent.Stdout = l.t.Output()
	l.must(l.agent.Start())
	l.wait("the agent answers", func() bool {
		_, err := l.client.Status(l.t.Context())
		return err == nil
	})
	if has := l.effective(); bits.OnesCount64(has) != len(names) {
		l.t.Fatalf("the agent runs with capabilities %#x, wanted %v", has, names)
	}
}

// effective are the capabilities that the agent runs with.
func (l *lab) effective() uint64 {
	l.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.agent.Process.Pid))
	l.must(err)
	_, after, _ := strings.Cut(string(text), "CapEff:")
	first, _, _ := strings.Cut(after, "\n")
	has, err := strconv.ParseUint(strings.TrimSpace(first), 16, 64)
	l.must(err)
	return has
}

// end sends the signal and waits for the agent's end.
func (l *lab) end(signal os.Signal) {
	l.t.Helper()
	if l.agent == nil {
		return
	}
	begun := time.Now()
	l.must(l.agent.Process.Signal(signal))
	err := l.agent.Wait()
	if signal == syscall.SIGTERM && err != nil {
		l.t.Errorf("stopped with %v", err)
	}
	if took := time.Since(begun); took > stopBound {
		l.t.Errorf("%v took %v to end the agent", signal, took)
	}
	l.agent = nil
}

// leave stops the agent. What it pinned stays: loading the programs takes long in an emulated machine, and the
// next test's agent has to find its way from what is there, as any agent does.
func (l *lab) leave() { l.end(syscall.SIGTERM) }

// stopBound is what deploy/musterd.service grants (TimeoutStopSec) before systemd kills: a round under way ends first.
const stopBound = 20 * time.Second

// patience is far more than anything here takes on an emulated machine that has the computer to itself.
const patience = 5 * time.Minute

// wait waits for ok, looking again and again, and gives up after patience.
func (l *lab) wait(what string, ok func() bool) {
	l.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			status, err := l.client.Status(l.t.Context())
			text, _ := json.Marshal(status)
			l.t.Fatalf("never: %s\n%s %v", what, text, err)
		case <-tick.C:
		}
	}
}

// settle syncs until the newest release is enforced.
func (l *lab) settle() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	result, err := l.client.Sync(ctx, control.SyncRequest{Wait: true})
	l.must(err)
	if result.Outcome != control.OutcomeEnforced {
		l.t.Fatalf("sync: %s: %+v", result.Outcome, result.Problem)
	}
}

// blocking is a policy that blocks reading and writing these files.
func blocking(name string, paths ...string) map[string][]byte {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: %s}\nspec:\n", name)
	b.WriteString("  nodeSelector: {matchLabels: {kubearmor.io/hostname: \"*\"}}\n  severity: 7\n  tags: [lab, test]\n  message: not for you\n  file:\n    matchPaths:\n")
	for _, path := range paths {
		fmt.Fprintf(&b, "      - {path: %s}\n", path)
	}
	b.WriteString("  action: Block\n")
	return map[string][]byte{"p.yaml": []byte(b.String())}
}

func (l *lab) publishNext(files map[string][]byte) {
	l.t.Helper()
	l.publish(files, []string{"alice"}, l.sequence+1, true)
}

func (l *lab) file(name string) string {
	l.t.Helper()
	path := filepath.Join(l.files, name)
	l.must(os.WriteFile(path, []byte(name), 0o644))
	return path
}

// try opens the file for reading as the kernel sees it.
func try(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func (l *lab) denied(path string) {
	l.t.Helper()
	if err := try(path); !errors.Is(err, unix.EACCES) {
		l.t.Fatalf("%s: %v, wanted to be denied", path, err)
	}
}

func (l *lab) allowed(path string) {
	l.t.Helper()
	if err := try(path); err != nil {
		l.t.Fatalf("%s: %v, wanted to be allowed", path, err)
	}
}

func (l *lab) state(want fleet.HostState) {
	l.t.Helper()
	l.wait(string(want), func() bool {
		status, err := l.client.Status(l.t.Context())
		return err == nil && status.Report.State == want
	})
}

// records reads the event file after everything the kernel emitted is in it.
func (l *lab) records() []events.Record {
	l.t.Helper()
	l.must(l.client.Flush(l.t.Context()))
	file, err := os.Open(l.events)
	l.must(err)
	defer file.Close()
	var out []events.Record
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		var r events.Record
		l.must(json.Unmarshal(scanner.Bytes(), &r))
		out = append(out, r)
	}
	l.must(scanner.Err())
	return out
}

// TestLabADay: from a published release to a denial, its event and its signed report in the status repository, through
// repairs and modes to the agent's end.
func TestLabADay(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	l := newLab(t)
	l.reportTo()
	secret, open := l.file("secret"), l.file("open")
	l.run(agentOne)
	l.publishNext(l.enrol(blocking("keep-out", secret)))
	l.settle()
	l.state(fleet.StateEnforced)
	l.denied(secret)
	l.allowed(open)
	var mine []events.Record
	for _, r := range l.records() {
		if r.Resource == secret && r.HostPID == int32(os.Getpid()) {
			mine = append(mine, r)
		}
	}
	if len(mine) != 1 {
		t.Fatalf("events of this process: %+v", mine)
	}
	r := mine[0]
	got := []string{r.PolicyName, r.Action, r.Operation, r.Result, r.Type, r.Severity, r.Tags, r.Message, r.Enforcer, r.ClusterName}
	want := []string{"keep-out", "Block", "File", "Permission denied", "MatchedHostPolicy", "7", "lab,test", "not for you", "BPFLSM", l.fleet}
	if !slices.Equal(got, want) {
		t.Errorf("event: %v, wanted %v", got, want)
	}
	l.reported("keep-out")
	l.repairs(secret)
	l.modes(secret)
	l.end(syscall.SIGKILL)
	l.denied(secret)
	l.run(agentTwo)
	l.state(fleet.StateEnforced)
	l.denied(secret)
	l.folded()
	l.end(syscall.SIGTERM)
	l.denied(secret)
	l.allowed(open)
}

// repairs removes a pin: it is put back, and the report says so.
func (l *lab) repairs(secret string) {
	l.t.Helper()
	pins := l.pins()
	if len(pins) == 0 {
		l.t.Fatal("nothing is pinned")
	}
	l.must(os.Remove(pins[0]))
	l.wait("the repair", func() bool {
		status, err := l.client.Status(l.t.Context())
		return err == nil && len(status.Repairs) > 0
	})
	status, err := l.client.Status(l.t.Context())
	l.must(err)
	l.t.Logf("removed %s: repaired %+v", pins[0], status.Repairs[0].Drift)
	l.state(fleet.StateEnforced)
	l.denied(secret)
	if !slices.ContainsFunc(status.Report.Conditions, func(c fleet.Condition) bool { return c.Type == "Repaired" }) {
		l.t.Errorf("conditions: %+v", status.Report.Conditions)
	}
}

// pins lists the pinned links.
func (l *lab) pins() []string {
	l.t.Helper()
	var out []string
	l.must(filepath.WalkDir(l.bpffs, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.Contains(path, "link") {
			out = append(out, path)
		}
		return err
	}))
	return out
}

// modes tries the words of the configuration, changed by SIGHUP.
func (l *lab) modes(secret string) {
	l.t.Helper()
	for _, step := range []struct {
		mode  enforce.Mode
		state fleet.HostState
		deny  bool
	}{{enforce.ModeAudit, fleet.StateAudited, false}, {enforce.ModeEnforce, fleet.StateEnforced, true}, {enforce.ModeOff, fleet.StateUnknown, false}, {enforce.ModeEnforce, fleet.StateEnforced, true}} {
		l.setMode(step.mode)
		l.state(step.state)
		if step.deny {
			l.denied(secret)
		} else {
			l.allowed(secret)
		}
	}
}

func (l *lab) setMode(mode enforce.Mode) {
	l.t.Helper()
	text, err := os.ReadFile(l.config())
	l.must(err)
	kept, _, _ := strings.Cut(string(text), "mode: ")
	l.must(os.WriteFile(l.config(), []byte(kept+"mode: "+string(mode)+"\n"), 0o600))
	l.must(l.agent.Process.Signal(syscall.SIGHUP))
}
