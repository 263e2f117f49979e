// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package evade tries to walk round what the kernel engine enforces, on the lab's kernels.
//
// The model. A way is one trick, told by a shell line or a function. It runs in a process of its own, which begins before
// the policies are published (so that it can hold descriptors, mappings and sockets) and makes its attempt afterwards: as
// root, and as an unprivileged user where the trick needs no privilege. Each attempt has a control: the same one under policies
// that deny nothing must succeed, or the row fails, because it proves nothing. A way is held when the attempt yields neither
// the protected contents, nor a run of the blocked program, nor a change of the read-only file. One that leads round and is
// known to has the name of its limit, in the words of docs/gaps.md. A whole run leaves its results in testdata and in
// docs/evasion.md.
//
// Limits. One host subject on one machine; file systems are ext4, tmpfs, overlayfs and btrfs. Kernel modules are not tried.
package evade
