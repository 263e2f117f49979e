// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package bpflsm makes the kernel obey through BPF-LSM.
//
// A ruleset is rendered into one image: automata, rows of outcomes, tables of sources and marks, in 16-byte
// units (bpf/include/abi.h). Rendering is deterministic under the boot's hash key, so the kernel's copy can
// be compared with what it should be, byte for byte. Publishing is one update of one slot: every decision
// takes the slot once, and sees the old ruleset or the new one.
//
// Programs, maps and links are pinned below Config.Root and stay when the agent goes. An agent that comes
// finds them, and adopts what is its own; what differs is replaced by loading a fresh set beside the old
// one, so that at every moment at least one complete set decides.
//
// # Limits
//
// The host subject. A file is known by at most four protected
// paths, a source by two. What the package cannot do stands in Capabilities.
package bpflsm
