// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package evade tries to walk round what the kernel engine enforces, on the lab's kernels.
//
// The model. A way is one trick, told by a shell line or a function. It runs in a process of its own, which begins before
// the policies are published (so that it can hold descriptors, mappings and sockets) and makes its attempt afterwards: as
// root, and as an unprivileged user where the trick needs no privilege. Each has a control: the same attempt without
// policies must succeed, or the way proves nothing. A way is held when the attempt yields neither the protected contents,
// nor a run of the blocked program, nor a change of the read-only file.
//
// Limits. One host subject on one machine; file systems are ext4, tmpfs and overlayfs. What is documented as out of
// scope (raw disks, kernel modules, mappings that exist already) is not tried.
package evade
