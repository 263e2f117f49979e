// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/test/vm"
)

// TestUsable: a kernel that lacks what the programs need is told apart before anything is attached. With KERNEL=5.10 it
// is the only test here that can pass.
func TestUsable(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	err, release := Usable(), unix.ByteSliceToString(name.Release[:])
	if strings.HasPrefix(release, "5.10.") {
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "bpf_loop") {
			t.Errorf("%s: %v", release, err)
		}
	} else if err != nil {
		t.Errorf("%s: %v", release, err)
	}
	b, newErr := New(Config{})
	if newErr != nil {
		t.Fatal(newErr)
	}
	found, featuresErr := b.Features()
	if featuresErr != nil || !found[FeatureLSM] || found[FeatureLoop] != (err == nil) || err == nil && !found[FeatureHooks] {
		t.Errorf("%s: features %v, %v; usable: %v", release, found, featuresErr, err)
	}
}
