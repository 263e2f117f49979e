// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestFeatures compares what is told of the kernel with the text of its types, and with what Usable says, on any machine.
func TestFeatures(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("root is needed to ask the kernel")
		}
		t.Skip("root is needed to ask the kernel")
	}
	b, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	found, err := b.Features()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(found)
	if err := Usable(); (err == nil) != (found[FeatureLSM] && (found[FeatureLoop] || olderUsable() == nil)) {
		t.Errorf("%v, and usable: %v", found, err)
	}
	types, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Fatal(err)
	}
	const hooksOfSome = "bpf_lsm_file_ioctl_compat bpf_lsm_file_truncate bpf_lsm_inode_remove_acl bpf_lsm_inode_set_acl bpf_lsm_inode_setattr"
	var told []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if name == FeatureLSM || name == FeatureLoop || name == FeatureHooks {
			continue
		}
		told = append(told, name)
		if there := bytes.Contains(types, []byte("\x00"+name+"\x00")); there != found[name] {
			t.Errorf("%s: %v, in the kernel's types %v", name, found[name], there)
		}
	}
	if !strings.HasPrefix(strings.Join(told, " "), hooksOfSome) || len(told) != 9 {
		t.Errorf("hooks that not every kernel has: %v", told)
	}
	if there := bytes.Contains(types, []byte("\x00bpf_lsm_file_open\x00")); found[FeatureHooks] && !there {
		t.Error("all hooks are there, and file_open is not")
	}
}
