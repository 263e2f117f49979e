//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// One object of all programs: they share maps and the global functions, which the verifier reads once each.
#include "include/maps.h"
#include "include/walk.h"
#include "include/hash.h"
#include "include/args.h"
#include "include/match.h"
#include "include/judge.h"
#include "include/held.h"
#include "include/socket.h"
#include "include/keep.h"
#include "include/calls.h"
#include "include/given.h"
#include "include/question.h"
#include "include/packet.h"
#include "include/owner.h"
#ifndef OLDER_KERNEL
#include "include/self_map.h"
#include "include/self_mount.h"
#endif

#include "label.bpf.c"
#include "mark.bpf.c"
#include "args.bpf.c"
#include "exec.bpf.c"
#include "capable.bpf.c"
#include "file.bpf.c"
#include "held.bpf.c"
#include "map.bpf.c"
#include "below.bpf.c"
#include "xattr.bpf.c"
#include "ioctl.bpf.c"
#ifdef OLDER_KERNEL
#include "older.bpf.c"
#endif
#include "dns.bpf.c"
#include "tell.bpf.c"
#include "query.bpf.c"
#include "packet.bpf.c"
#include "flow.bpf.c"
#include "net.bpf.c"
#include "preset.bpf.c"
#include "syscalls.bpf.c"
#ifndef OLDER_KERNEL
#include "probe.bpf.c"
#include "self.bpf.c"
#endif

char LICENSE[] SEC("license") = "Dual BSD/GPL";
