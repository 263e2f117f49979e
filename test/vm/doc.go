// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package vm is the lab: it boots a chosen Debian kernel with a chosen list of security modules under QEMU's
// software emulation, with a minimal Debian root, and runs commands and Go test binaries inside.
//
// The model. Kernels and the root image come from the machine's own Debian mirrors and are cached below
// $MUSTER_CACHE (default ~/.cache/muster); nothing is installed. The guest's /init, process 1 and agent are one
// static Go program (test/vm/guest), which the host reaches over a virtio-serial port; see test/vm/wire. With
// Options.Systemd process 1 is Debian's systemd, and the agent a unit of it. The root is writable, and every change dies
// with the machine. Nothing is ever attached to the kernel of the machine that runs the tests. Loaded into it, attached nowhere
// and gone with the test, are the matcher and the program for packets, which enforce/bpflsm runs by BPF_PROG_TEST_RUN
// (newProber, newPacketProgram), their maps, and what it asks the kernel by: two instructions for bpf_loop, a map of one entry for
// how memory is counted.
//
// A package whose tests need a kernel has one test that calls TestPackage, and begins each of the others with
// Require:
//
//	func TestInVM(t *testing.T) { vm.TestPackage(t, vm.Options{LSM: vm.BPF}) }
//	func TestDenied(t *testing.T) { vm.Require(t, vm.BPFLSM); … }
//
// On the machine itself TestInVM compiles the package's tests, runs those that call Require inside each kernel
// and shows each as a subtest.
//
// Limits. Emulation is 10 to 30 times slower than the machine, its wall times vary; costs are counted with
// Options.ICount. At most two machines run at once over all processes; further ones wait for a slot, so a test
// must not hold one machine while it boots another.
package vm
