// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bytes"
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/test/vm"
)

// TestMemory: what is remembered outlives the agent, and begins anew when somebody put another thing in its place.
func TestMemory(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	root := testRoot + "-memory"
	open := func() *Backend {
		b, err := New(Config{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	recalled := func(b *Backend, name, want string) {
		t.Helper()
		if got, err := b.Recall(name); err != nil || string(got) != want {
			t.Fatalf("%s: %q %v, wanted %q", name, got, err, want)
		}
	}
	one := open()
	t.Cleanup(func() { _ = one.pins.removeAll() })
	recalled(one, "a", "")
	for name, value := range map[string]string{"a": "1", "": "own", "long": string(bytes.Repeat([]byte("x"), memoryValue-2))} {
		if err := one.Remember(name, []byte(value)); err != nil {
			t.Fatal(err)
		}
		recalled(open(), name, value)
	}
	if err := one.Remember("a", nil); err != nil {
		t.Fatal(err)
	}
	recalled(one, "a", "")
	if err := one.Remember("too long", make([]byte, memoryValue-1)); err == nil {
		t.Fatal("a value that does not fit")
	}
	// An upgrade to another layout removes the other directories, not the memory.
	if err := one.pins.removeOthers(); err != nil {
		t.Fatal(err)
	}
	recalled(open(), "", "own")

	if err := os.Remove(one.pins.memoryPath()); err != nil {
		t.Fatal(err)
	}
	other, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Pin(one.pins.memoryPath()); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Recall(""); err == nil {
		t.Fatal("another map in its place is read")
	}
	if err := one.Remember("b", []byte("2")); err != nil {
		t.Fatal(err)
	}
	recalled(open(), "b", "2")
	if err := one.Apply(t.Context(), enforce.StepDetach{}); err != nil {
		t.Fatal(err)
	}
	recalled(open(), "b", "")
}
