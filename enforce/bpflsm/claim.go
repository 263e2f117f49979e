// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
)

// Claim makes this process the agent of what an earlier agent of the same layout left pinned, and answers whether it did.
// A restarted agent is an ordinary process under the pinned ruleset until then, so this comes before it reads or binds
// anything. It opens no file but /proc/self/stat and fdinfo: pins are opened by bpf(2), which is no opening of a file.
//
// An agent that still runs keeps its exemption, unless locked says that there can be no other: a second agent that is
// started by mistake must not take it away.
func (b *Backend) Claim(locked bool) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	config, err := b.pins.openMap(bpf.MusterMapConfig)
	if config == nil || err != nil {
		return false, err
	}
	defer config.Close()
	var s bpf.MusterSettings
	if err := config.Lookup(uint32(0), &s); err != nil {
		return false, fmt.Errorf("read settings: %w", err)
	}
	if !locked && s.AgentTgid != 0 && runs(int(s.AgentTgid)) {
		return false, nil
	}
	return true, claim(config, &s)
}

// runs says whether there is such a process.
func runs(pid int) bool { return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// claim names this process as the agent: its own operations are never denied.
func claim(config *ebpf.Map, s *bpf.MusterSettings) error {
	start, err := selfStart()
	if err != nil {
		return fmt.Errorf("read own start: %w", err)
	}
	s.AgentStart, s.AgentTgid = start, uint32(os.Getpid())
	if err := config.Put(uint32(0), s); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}
