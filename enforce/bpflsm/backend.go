// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
)

// Name is the backend's name in steps, states and gaps.
const Name = "bpflsm"

// ErrNotAttached says that a step needs the programs, which are not there: StepAttach comes first.
var ErrNotAttached = errors.New("programs are not attached")

// Config says where the backend lives.
type Config struct {
	// Root is the directory on a bpffs that holds the pins; "" means /sys/fs/bpf/muster.
	Root string
	// RingBytes is the size of the event ring, a power of two; 0 means 2 MiB.
	RingBytes int
	// Log takes what is worth knowing and is no error; nil discards it.
	Log *slog.Logger
}

const defaultRoot = "/sys/fs/bpf/muster"

// Backend is the BPF-LSM backend. Its methods may be called from several goroutines.
type Backend struct {
	ringBytes int
	log       *slog.Logger
	spec      *ebpf.CollectionSpec
	pins      pins
	reader    eventReader

	callsOnce sync.Once
	calls     map[string]bool // names of the system calls of this kernel, nil when they are not known

	mu sync.Mutex
	// self is what self-protection covers, nil while it is off. selfFault is why it is not in force as it should be, and
	// nextGuard when that is tried again.
	self      *Self
	selfFault error
	nextGuard time.Time
	// loaded is this process's own loading: attached, or kept for its iterators beside an adopted set.
	loaded *programSet
	// machine is what was read of it, once.
	machine *host
	// maps are the pinned maps that are in force.
	maps map[string]*ebpf.Map
	// last is the last rendering, without its bytes.
	last    *Image
	lastKey hashKey
	// moved is how many directories and symlinks had got names when the marks were last made; nextMarks is when they may be made
	// again for that.
	moved      uint64
	nextMarks  time.Time
	namesMoved chan struct{}
	// packets is true once control groups were found, where packets are seen.
	packets atomic.Bool
	// marked is the rendering, without its bytes, whose protected files have been marked: that of the image in force, or of
	// the one that is being published. made are the marks that the agent itself made for it; kept are those of before the
	// boot whose filesystem is missing.
	marked *Image
	made   map[bpf.MusterMarkKey][]uint64
	kept   []keptMark
	// around is what the files were looked for in, nil when some file may lack its mark, or nobody followed the names
	// since; unmarked is true when some file could not be marked.
	around   *surroundings
	unmarked bool
	// needed is what the ruleset that this agent brought into force needs. It counts when somebody emptied the slot.
	needed demand
	// settled are the settings as this agent left them, nil before it did.
	settled *bpf.MusterSettings
	// inherited is the key of the entries of maps that were taken over from another layout.
	inherited hashKey
}

// New prepares a backend. It loads nothing and changes nothing in the kernel.
func New(config Config) (*Backend, error) {
	spec, err := builtIn()
	if err != nil {
		return nil, err
	}
	log := config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{
		ringBytes: cmp.Or(config.RingBytes, 2<<20), log: log, spec: spec,
		pins: newPins(cmp.Or(config.Root, defaultRoot), spec), namesMoved: make(chan struct{}, 1),
	}
	b.reader.init()
	return b, nil
}

// Name implements enforce.Backend.
func (b *Backend) Name() string { return Name }

// Capabilities implements enforce.Backend.
func (b *Backend) Capabilities() enforce.Capabilities {
	packets := b.seesPackets(mountTable)
	return enforce.Capabilities{
		Backend: Name,
		Classes: map[policies.Class]bool{
			policies.ClassProcess: true, policies.ClassFile: true, policies.ClassNetwork: true, policies.ClassCapabilities: true,
			policies.ClassDNS: packets, policies.ClassIngress: packets, policies.ClassEgress: packets,
			policies.ClassSyscalls: runtime.GOARCH == "amd64", policies.ClassPreset: true,
		},
		Syscalls: b.syscalls,
		Features: map[string]bool{
			enforce.FeaturePattern: true, enforce.FeatureExecName: true, enforce.FeatureOwnerOnly: true,
			enforce.FeaturePts: true, enforce.FeatureAllowedArgs: true, enforce.FeatureHardLink: true, enforce.FeatureRename: true,
			enforce.FeatureBindMount: true,
		},
	}
}

// Apply implements enforce.Backend.
func (b *Backend) Apply(ctx context.Context, step enforce.Step) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	switch step := step.(type) {
	case enforce.StepAttach:
		return b.attach(ctx)
	case enforce.StepPublish:
		return b.publish(ctx, step.Ruleset)
	case enforce.StepWithdraw:
		return b.withdraw(step.Subject)
	case enforce.StepDetach:
		return b.detach()
	default:
		return fmt.Errorf("bpflsm: unknown step %T", step)
	}
}

func (b *Backend) publish(ctx context.Context, rs *enforce.Ruleset) error {
	if rs.Subject != enforce.Host {
		return fmt.Errorf("subject %s: %w", rs.Subject, ErrUnrenderable)
	}
	if b.maps == nil || b.loaded == nil {
		return ErrNotAttached
	}
	key, err := b.key()
	if err != nil {
		return err
	}
	image, err := render(rs, key)
	if err != nil {
		return err
	}
	kept := b.remember(image, key)
	b.reader.know(image)
	demanded := demandOf([]*enforce.Ruleset{rs})
	if err := b.provide(ctx, demanded); err != nil {
		return err
	}
	// Marks mean nothing until an image knows them, so they come before it; and after the programs that follow names, or
	// a file could be renamed between.
	if err := b.markChanged(ctx, kept); err != nil {
		return err
	}
	if err := publish(b.maps[bpf.MusterMapSlots], innerSpec(b.spec), image.Bytes); err != nil {
		return err
	}
	b.needed = demanded
	if b.machine != nil {
		b.machine.forget()
	}
	return errors.Join(b.retire(demanded|b.constant()), b.sweepMarks(image), b.pins.removeOthers())
}

func (b *Backend) withdraw(subject enforce.SubjectID) error {
	if subject != enforce.Host {
		return nil
	}
	if b.maps == nil {
		if err := b.openMaps(); err != nil {
			return err
		}
	}
	slots := b.maps[bpf.MusterMapSlots]
	if slots == nil {
		return nil
	}
	if err := withdraw(slots); err != nil {
		return err
	}
	b.needed = 0
	return errors.Join(b.retire(b.constant()), b.pins.removeOthers())
}

func (b *Backend) detach() error {
	err := b.pins.removeAll()
	b.release()
	return err
}

// release closes every descriptor; what is pinned stays.
func (b *Backend) release() {
	b.reader.detach()
	if b.loaded != nil {
		b.loaded.close()
		b.loaded = nil
	}
	for _, m := range b.maps {
		_ = m.Close()
	}
	b.maps, b.settled, b.marked, b.made, b.around, b.needed, b.inherited = nil, nil, nil, nil, nil, 0, hashKey{}
}

// Close lets go of the kernel's objects. What is pinned goes on enforcing.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.release()
	return nil
}

// settings reads the map that agent and programs share.
func (b *Backend) settings() (bpf.MusterSettings, error) {
	var s bpf.MusterSettings
	m := b.maps[bpf.MusterMapConfig]
	if m == nil {
		return s, ErrNotAttached
	}
	if err := m.Lookup(uint32(0), &s); err != nil {
		return s, fmt.Errorf("read settings: %w", err)
	}
	return s, nil
}

func (b *Backend) key() (hashKey, error) {
	s, err := b.settings()
	return hashKey(s.HashKey), err
}
