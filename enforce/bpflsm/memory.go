// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The agent's memory beside the disk: a pinned map that no program reads. It outlives agents and what they lose or are
// robbed of on disk, and ends with a reboot or with StepDetach. It lies beside the directories of the layouts, so that an
// upgrade leaves it alone.
//
// Key: SHA-256 of the name. Value: its length and its bytes. A name that does not fit any more is an error; nothing is
// dropped for it.
const (
	memoryName    = "memory"
	memoryEntries = 256
	memoryValue   = 1024
)

func memorySpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: "muster_memory", Type: ebpf.Hash, KeySize: sha256.Size, ValueSize: memoryValue, MaxEntries: memoryEntries, Flags: unix.BPF_F_NO_PREALLOC,
	}
}

func (p pins) memoryPath() string { return filepath.Join(p.root, memoryName) }

// Remember keeps value under name, in the place of what was there.
func (b *Backend) Remember(name string, value []byte) error {
	if len(value) > memoryValue-2 {
		return fmt.Errorf("remember %s: %d bytes, more than %d", name, len(value), memoryValue-2)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	m, err := b.memory()
	if err != nil {
		return fmt.Errorf("remember %s: %w", name, err)
	}
	defer m.Close()
	cell := make([]byte, memoryValue)
	binary.LittleEndian.PutUint16(cell, uint16(len(value)))
	copy(cell[2:], value)
	key := sha256.Sum256([]byte(name))
	if err := m.Put(key[:], cell); err != nil {
		return fmt.Errorf("remember %s: %w", name, err)
	}
	return nil
}

// Recall answers what is kept under name, nil for nothing.
func (b *Backend) Recall(name string) ([]byte, error) {
	m, err := ebpf.LoadPinnedMap(b.pins.memoryPath(), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("recall %s: %w", name, err)
	}
	defer m.Close()
	if err := memorySpec().Compatible(m); err != nil {
		return nil, fmt.Errorf("recall %s: %w", name, err)
	}
	key := sha256.Sum256([]byte(name))
	var cell []byte
	switch err := m.Lookup(key[:], &cell); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("recall %s: %w", name, err)
	}
	n := int(binary.LittleEndian.Uint16(cell))
	if n > len(cell)-2 {
		return nil, fmt.Errorf("recall %s: a length of %d", name, n)
	}
	return cell[2 : 2+n], nil
}

// memory opens the map, or makes it. One of another shape, or no map at all, gives way.
func (b *Backend) memory() (*ebpf.Map, error) {
	path := b.pins.memoryPath()
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err == nil {
		if err = memorySpec().Compatible(m); err == nil {
			return m, nil
		}
		_ = m.Close()
	}
	if !errors.Is(err, os.ErrNotExist) {
		b.log.Warn("the memory beside the disk begins anew", "error", err)
		if err := os.RemoveAll(path); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(b.pins.root, 0o700); err != nil {
		return nil, err
	}
	if m, err = ebpf.NewMap(memorySpec()); err != nil {
		return nil, err
	}
	if err := m.Pin(path); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}
