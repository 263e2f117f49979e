// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/test/vm"
)

// TestUsable: the lab's kernels are usable, 5.10 among them, which alone lacks bpf_loop.
func TestUsable(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	if err := Usable(); err != nil {
		t.Errorf("%s: %v", release, err)
	}
	b, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	found, err := b.Features()
	older := strings.HasPrefix(release, "5.10.")
	if err != nil || !found[FeatureLSM] || !found[FeatureHooks] || found[FeatureLoop] == older || isOlder() != older {
		t.Errorf("%s: features %v, %v", release, found, err)
	}
}
