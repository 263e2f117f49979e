// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package bpf is the kernel side: the programs, their maps, and the types that both sides know.
//
// The C sources stand next to the object that bpf2go made of them; the generated files are committed and a
// test regenerates them. The package knows nothing of policies: a ruleset comes as an image, a flat array
// of 16-byte units that enforce/bpflsm lays out and the programs walk (include/abi.h says how).
//
// # Model
//
// A hook fills in what is touched (class, operation, one or two objects) and asks judge, which takes the
// subject's image once, labels the caller if that has not been done, builds the paths, decides, and emits
// at most one event. Labels are kept in task storage and do not depend on the ruleset.
//
// # Limits
//
// Kernels from 5.17 (bpf_loop) with BTF and BPF-LSM, and 5.10. Paths up to PATH_MAX. An inode is known by at most
// four protected paths. A decision never waits and never allocates except for labels and marks.
package bpf

import (
	"hash/fnv"
	"sync"
)

// Build names the built-in objects: two agents of one build attach the same programs.
var Build = sync.OnceValue(func() uint64 {
	h := fnv.New64a() // an agent's start waits for it
	h.Write(_MusterBytes)
	h.Write(_ProbingBytes)
	h.Write(_OlderBytes)
	return h.Sum64()
})

// Cast is the function of the kernel, from 6.2, that the programs of LoadMuster need. Those of LoadProbing are made of
// the same sources and read the kernel's structures by a helper. Their maps are the same. Those of LoadOlder are for Linux 5.10, and have tables in the
// place of the storage of tasks.
const Cast = "bpf_rdonly_cast"
