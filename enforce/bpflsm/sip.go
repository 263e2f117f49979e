// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"encoding/binary"
	"math/bits"
)

// hashKey is the boot's own random key. Paths of sources and marks are known to the kernel by their SipHash.
type hashKey [2]uint64

// hash is SipHash-2-4 of path, as bpf/include/hash.h computes it; 0 is kept for "none".
func (k hashKey) hash(path string) uint64 {
	s := [4]uint64{
		k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d,
		k[0] ^ 0x6c7967656e657261, k[1] ^ 0x7465646279746573,
	}
	b := []byte(path)
	last := uint64(len(b)) << 56
	for ; len(b) >= 8; b = b[8:] {
		sipWord(&s, binary.LittleEndian.Uint64(b))
	}
	for i, c := range b {
		last |= uint64(c) << (8 * i)
	}
	sipWord(&s, last)
	s[2] ^= 0xff
	for range 4 {
		sipRound(&s)
	}
	return max(s[0]^s[1]^s[2]^s[3], 1)
}

func sipWord(s *[4]uint64, word uint64) {
	s[3] ^= word
	sipRound(s)
	sipRound(s)
	s[0] ^= word
}

func sipRound(s *[4]uint64) {
	s[0] += s[1]
	s[1] = bits.RotateLeft64(s[1], 13) ^ s[0]
	s[0] = bits.RotateLeft64(s[0], 32)
	s[2] += s[3]
	s[3] = bits.RotateLeft64(s[3], 16) ^ s[2]
	s[0] += s[3]
	s[3] = bits.RotateLeft64(s[3], 21) ^ s[0]
	s[2] += s[1]
	s[1] = bits.RotateLeft64(s[1], 17) ^ s[2]
	s[2] = bits.RotateLeft64(s[2], 32)
}
