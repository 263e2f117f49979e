// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
)

// Self is what self-protection covers beside the pins, the agent's executable and its unit.
type Self struct {
	// Trees are files and directories that nobody but the agent may change; of a directory all that is below it.
	Trees []string
	// Run are such directories that whoever starts the agent makes and removes.
	Run []string
}

// errNotRecognised says that self-protection is in force and this process is not the agent that it knows.
var errNotRecognised = errors.New("the kernel refuses what is the agent's: self-protection does not know this process as the agent, or it may not use BPF")

// RecognitionError is errNotRecognised with what to do.
type RecognitionError struct{ err error }

func (e *RecognitionError) Error() string { return errNotRecognised.Error() + ": " + e.err.Error() }

// Unwrap returns the kernel's answer, and the kind.
func (e *RecognitionError) Unwrap() []error { return []error{errNotRecognised, e.err} }

// Name is the error's name for programs.
func (e *RecognitionError) Name() string { return "not-recognised" }

// Hint is what the operator can do.
func (e *RecognitionError) Hint() string {
	return "start it by systemctl start musterd; an executable that was replaced without a stand-down is known again after a reboot"
}

// Recognition is err with what to do about it, where a file was refused and self-protection may be why: its programs are
// pinned below root, "" as in Config.
func Recognition(root string, err error) error {
	pinned, _ := filepath.Glob(filepath.Join(cmp.Or(root, defaultRoot), "*", "link_"+selfPrefix+"*"))
	if len(pinned) == 0 {
		return err
	}
	return recognition(err)
}

// recognition tells a refusal by self-protection from other errors.
func recognition(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return &RecognitionError{err: err}
	}
	return err
}

// ProtectSelf begins or, with nil, ends self-protection. Before the programs are attached it says what to attach; what an
// agent before this one attached ends at once all the same.
func (b *Backend) ProtectSelf(ctx context.Context, s *Self) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.self, b.selfFault = s, nil
	if s == nil {
		return b.retireSelf()
	}
	if b.loaded == nil {
		return nil
	}
	return errors.Join(b.guard(ctx), b.selfFault)
}

// retireSelf ends self-protection at once, and detaches its programs, those of other layouts too: the kernel takes its time
// for that.
func (b *Backend) retireSelf() error {
	err := errors.Join(b.disarm(), b.retire(everyDemand&^demandSelf))
	others, failed := b.pins.others()
	err = errors.Join(err, failed)
	for _, other := range others {
		pinned, failed := filepath.Glob(other.linkPath(selfPrefix + "*"))
		err = errors.Join(err, failed)
		for _, pin := range pinned {
			err = errors.Join(err, os.Remove(pin))
		}
	}
	if err != nil {
		return fmt.Errorf("self-protection: let go: %w", err)
	}
	return nil
}

// disarm tells the programs of self-protection to deny nothing more, if there are any.
func (b *Backend) disarm() error {
	m, err := b.pins.openMap(bpf.MusterMapAgent)
	if m == nil || err != nil {
		return err
	}
	defer m.Close()
	var self bpf.MusterSelf
	if err := m.Lookup(uint32(0), &self); err != nil {
		return fmt.Errorf("read who is the agent: %w", err)
	}
	self.Off = 1
	return m.Put(uint32(0), &self)
}

// selfPrefix begins the names of the programs of self-protection.
const selfPrefix = "self_"

// constant is what is in demand whatever the ruleset.
func (b *Backend) constant() demand {
	if b.self == nil {
		return 0
	}
	return demandSelf
}

// guardAgain is how long self-protection that failed is left alone: its programs take the kernel a while.
const guardAgain = 10 * time.Minute

// guard tells the kernel what is the agent's and then attaches the programs of self-protection. Policies do not depend on
// them: what fails here is noted, and the rest goes on. Programs that are attached already stay, with what they were told
// before.
func (b *Backend) guard(ctx context.Context) error {
	if b.self == nil {
		return nil
	}
	err := errOlder
	if !isOlder() {
		err = b.describeSelf(ctx)
	}
	if err == nil {
		err = b.provide(ctx, demandSelf)
	}
	return b.guarded(ctx, err)
}

// guarded notes how an attempt ended. One that was cut short by ctx says nothing.
func (b *Backend) guarded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		b.log.Error("self-protection is not as it should be", "error", err, "again", guardAgain)
		b.nextGuard = time.Now().Add(guardAgain)
	}
	b.selfFault = err
	return nil
}

// keepGuard tells the kernel anew, with each look at it, what is the agent's: an upgrade of systemd replaces what starts
// the agent, and files come and go. What failed is tried again after a while.
func (b *Backend) keepGuard(ctx context.Context) error {
	switch {
	case b.self == nil || b.loaded == nil:
		return nil
	case b.selfFault != nil && time.Now().Before(b.nextGuard):
		return nil
	case b.selfFault != nil:
		return b.guard(ctx)
	}
	return b.guarded(ctx, b.describeSelf(ctx))
}

// describeSelf tells the kernel who may be the agent and what is its own. The settings name this process as the agent
// already: the inodes are told by an iterator over its descriptors.
func (b *Backend) describeSelf(ctx context.Context) error {
	who, err := whoAmI()
	if err != nil {
		return err
	}
	wanted, err := b.selfPlaces(who)
	if err != nil {
		return err
	}
	all := make([]string, 0, len(wanted)+1)
	for p := range wanted {
		all = append(all, p)
	}
	if who.starter != "" {
		all = append(all, who.starter)
	}
	found, err := identify(ctx, b.loaded.Programs[bpf.MusterProgMarkInodes], all)
	if err != nil {
		return err
	}
	program, known := found[who.program]
	if !known {
		return fmt.Errorf("self-protection: %s: %w", who.program, os.ErrNotExist)
	}
	self := who.settings()
	self.OwnMounts = program.Mounts
	self.Program, self.ProgramDevice, self.ProgramGeneration = program.Inode, program.Device, program.PlaceGeneration
	if starter, known := found[who.starter]; known {
		self.Starter, self.StarterDevice, self.StarterGeneration = starter.Inode, starter.Device, starter.PlaceGeneration
	}
	if err := b.maps[bpf.MusterMapAgent].Put(uint32(0), &self); err != nil {
		return fmt.Errorf("self-protection: say who is the agent: %w", err)
	}
	return putPlaces(b.maps[bpf.MusterMapPlaces], placeKeys(wanted, found))
}

// selfIdentity is who this process is, apart from inodes.
type selfIdentity struct {
	unit          string
	program       string
	starter       string
	launcher      uint32
	launcherStart uint64
	// groupParent is the control group that the unit's is in, launcherGroup the launcher's own: 0 without a unit.
	groupParent, launcherGroup uint64
}

// starters are what process 1 runs before a unit's own executable, by systemd's version.
var starters = []string{"/usr/lib/systemd/systemd-executor", "/lib/systemd/systemd-executor"}

func whoAmI() (*selfIdentity, error) {
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return nil, fmt.Errorf("self-protection: find the agent's executable: %w", err)
	}
	who := &selfIdentity{program: program, launcher: uint32(os.Getppid())}
	if who.launcherStart, err = processStart(int(who.launcher)); err != nil {
		return nil, fmt.Errorf("self-protection: find who started the agent: %w", err)
	}
	if err := who.findUnit(); err != nil {
		return nil, err
	}
	for _, starter := range starters {
		if resolved, err := filepath.EvalSymlinks(starter); err == nil {
			who.starter = resolved
			break
		}
	}
	return who, nil
}

func (who *selfIdentity) settings() bpf.MusterSelf {
	self := bpf.MusterSelf{
		Launcher: who.launcher, LauncherStart: who.launcherStart,
		GroupParent: who.groupParent, LauncherGroup: who.launcherGroup,
	}
	for i := range len(who.unit) {
		self.Unit[i/8] |= uint64(who.unit[i]) << (8 * (i % 8))
		self.UnitMask[i/8] |= 0xff << (8 * (i % 8))
	}
	self.UnitExact = self.UnitMask
	end := len(who.unit)
	self.UnitExact[end/8] |= 0xff << (8 * (end % 8))
	return self
}

// findUnit finds the name of the unit that this process was started as, "" when it is none: a unit's launcher is outside of
// its control group, a shell's child is where the shell is.
func (who *selfIdentity) findUnit() error {
	group, err := groupOf("self")
	if err != nil {
		return err
	}
	outside, err := groupOf(strconv.FormatUint(uint64(who.launcher), 10))
	if err != nil {
		return err
	}
	name := path.Base(group)
	if group == outside || !strings.HasSuffix(name, ".service") || len(name) >= 8*int(bpf.MusterSelfLimitSELF_UNIT_WORDS) {
		return nil
	}
	root, err := cgroupRoot(mountTable)
	if err != nil {
		return err
	}
	if who.groupParent, err = groupNumber(filepath.Join(root, path.Dir(group))); err != nil {
		return err
	}
	if who.launcherGroup, err = groupNumber(filepath.Join(root, outside)); err != nil {
		return err
	}
	who.unit = name
	return nil
}

// groupNumber is how the kernel numbers a control group.
func groupNumber(dir string) (uint64, error) {
	var s unix.Stat_t
	if err := unix.Stat(dir, &s); err != nil {
		return 0, fmt.Errorf("self-protection: find the control group %s: %w", dir, err)
	}
	return s.Ino, nil
}

// groupOf is a process's control group (version 2).
func groupOf(process string) (string, error) {
	content, err := os.ReadFile("/proc/" + process + "/cgroup")
	if err != nil {
		return "", fmt.Errorf("self-protection: find the agent's unit: %w", err)
	}
	for line := range strings.Lines(string(content)) {
		if name, ours := strings.CutPrefix(strings.TrimSpace(line), "0::"); ours {
			return name, nil
		}
	}
	return "", nil
}

// observeSelf tells of self-protection, and what is in demand for it.
func (b *Backend) observeSelf(state *enforce.State) demand {
	if b.selfFault != nil {
		state.SelfFault = b.selfFault.Error()
		return 0
	}
	return b.constant()
}

// observeResisted counts what self-protection denied since the maps were made.
func observeResisted(state *enforce.State, maps map[string]*ebpf.Map) error {
	counters := maps[bpf.MusterMapCounters]
	if counters == nil {
		return nil
	}
	n, err := readCounter(counters, bpf.MusterCounterCOUNT_SELF)
	state.Resisted = n
	return err
}
