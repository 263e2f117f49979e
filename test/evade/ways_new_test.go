// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

// Limits that docs/gaps.md names in these words.
const (
	limitNames   = "a name, not a file"
	limitMapped  = "a mapping that exists"
	limitCopy    = "a copy is another file"
	limitLoop    = "a loop device reads for root"
	limitRaw     = "the disk below"
	limitFront   = "the mapping of a stacked file"
	limitGone    = "mounted nowhere any more"
	limitFolding = "case-folding"
	limitInside  = "what an allowed program is made to do"
)

var (
	long     = []string{"exact/long"}
	listed   = []string{"tree/listed"}
	pipes    = []string{"exact/pipe", "tree/pipe"}
	devices  = []string{"exact/zero", "tree/zero"}
	script   = []string{"bin/script"}
	runnable = []string{"bin/tool", "bin/script"}
	made     = []string{"tree/new", "tree/sub/new"}
)

func spellingsMore() []way {
	return []way{
		{name: "chain of forty symlinks", targets: byName, sh: `ln -s "$S" "$W/l1" && i=1 && while [ $i -lt 39 ]; do ln -s "$W/l$i" "$W/l$((i+1))"; i=$((i+1)); done && cat "$W/l39"`},
		{name: "path of thousands of dots", targets: byName, sh: `p=$D; i=0; while [ $i -lt 1500 ]; do p=$p/.; i=$((i+1)); done; cat "$p/$T"`},
		{name: "through another thread's directory in /proc", targets: byName, sh: `cd "$(dirname "$S")" && cat "/proc/thread-self/cwd/$(basename "$S")"`},
		{name: "through the parent's root in /proc", targets: byName, sh: `sh -c 'cat "/proc/$PPID/root$S"; exit $?'`},
		{name: "direct input", targets: byName, sh: `dd if="$S" iflag=direct,fullblock bs=4096 count=1 2>/dev/null || dd if="$S" bs=4096 count=1`},
		{name: "io_uring open by a worker", targets: byName, code: readRingAsync},
		{name: "as another user", who: rootOnly, targets: byName, sh: `setpriv --reuid=5 --regid=5 --clear-groups cat "$S"`},
		{name: "without any capability", who: rootOnly, targets: byName, sh: `setpriv --bounding-set=-all --inh-caps=-all cat "$S"`},
		{name: "in a control group of its own", who: rootOnly, targets: byName, sh: `mkdir -p /tmp/evade-cg && mount -t cgroup2 c /tmp/evade-cg && mkdir -p /tmp/evade-cg/x && echo $$ >/tmp/evade-cg/x/cgroup.procs && cat "$S"; r=$?; echo $$ >/tmp/evade-cg/cgroup.procs; rmdir /tmp/evade-cg/x; umount /tmp/evade-cg; exit $r`},
		{name: "by an orphan of a session of its own", targets: byName, sh: `setsid -f sh -c 'cat "$S" >"$W/got" 2>&1; : >"$W/done"' ; until test -e "$W/done"; do sleep 0.1; done; cat "$W/got"`},
	}
}

func otherNamesMore() []way {
	return []way{
		{name: "hard link in another mount of the file system", who: rootOnly, targets: exact, sh: `mkdir "$W/b" && mount "$(findmnt -no SOURCE /)" "$W/b" && ln "$W/b$S" "$W/b$W/l" && cat "$W/b$W/l"; r=$?; umount "$W/b"; exit $r`},
		{name: "hard link made before in another mount", who: rootOnly, targets: exact, code: linkBeforeElsewhere},
		{name: "tree copied and attached elsewhere", who: rootOnly, targets: exact, code: readAttached},
		{name: "mount that maps its users", who: rootOnly, targets: exact, code: readMapped},
		{name: "file handle through the mount of another directory", who: rootOnly, targets: byName, code: readHandleElsewhere},
		{name: "bind mount of the directory for everybody", who: rootOnly, targets: []string{"tree/sub/secret", "keys/secret.key"}, limit: limitNames, sh: `mkdir "$W/b" && mount --bind "$(dirname "$S")" "$W/b" && cat "$W/b/$(basename "$S")"; r=$?; umount "$W/b"; exit $r`},
		{name: "rename of the directory that a pattern names", targets: []string{"keys/secret.key"}, limit: limitNames, sh: `mv "$D/keys" "$W/k" && cat "$W/k/secret.key"`},
		{name: "rename of the directory that a rule names", targets: []string{"tree/sub/secret"}, sh: `mv "$D/tree" "$W/k" && cat "$W/k/sub/secret"`},
		{name: "rename of a directory below it", targets: []string{"tree/sub/secret"}, sh: `mv "$D/tree/sub" "$W/k" && cat "$W/k/secret"`},
		{name: "another spelling of a case-folding directory", who: rootOnly, targets: []string{"keys/secret.key"}, limit: limitFolding, more: folding, code: folded("keys/SECRET.KEY")},
		{name: "another spelling of a file in a case-folding directory", who: rootOnly, targets: exact, more: folding, code: folded("exact/SECRET")},
		{name: "the disk itself", who: rootOnly, targets: long, limit: limitRaw, sh: `sync; debugfs -R "cat $S" "$(findmnt -no SOURCE /)"`},
	}
}

// folding are rules for what lies on a disk of its own.
const folding = `
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: evade-folding}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  file:
    matchPaths:
      - {path: D/disk/exact/secret}
    matchPatterns:
      - {pattern: D/disk/keys/*.key}
  action: Block
`

// programs are blocked by a pattern.
const programs = `
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: evade-programs}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  process:
    matchPatterns:
      - {pattern: D/prog/*}
  action: Block
`

// stacks and mounts that show an object under names that no rule knows.
func stacks() []way {
	return []way{
		{name: "program in an overlay, through the loader", who: rootOnly, targets: tool, sh: overlay + `/lib64/ld-linux-x86-64.so.2 "$W/o/m/tool" ` + token + `; r=$?; umount "$W/o/m" "$W/o"; exit $r`},
		{name: "program in an overlay of a user namespace, through the loader", targets: tool, sh: `unshare -Urm sh -c '` + overlay + `/lib64/ld-linux-x86-64.so.2 "$W/o/m/tool" ` + token + `'`},
		{name: "program of a pattern in an overlay, through the loader", who: rootOnly, targets: []string{"prog/run"}, limit: limitFront, more: programs, sh: overlay + `/lib64/ld-linux-x86-64.so.2 "$W/o/m/run" ` + token + `; r=$?; umount "$W/o/m" "$W/o"; exit $r`},
		{name: "program of a pattern in an overlay", who: rootOnly, targets: []string{"prog/run"}, more: programs, sh: overlay + `"$W/o/m/run" ` + token + `; r=$?; umount "$W/o/m" "$W/o"; exit $r`},
		{name: "overlay of an overlay", who: rootOnly, targets: byName, sh: overlay + `mkdir "$W/o/u2" "$W/o/w2" "$W/o/m2" && mount -t overlay p -o "lowerdir=$W/o/m,upperdir=$W/o/u2,workdir=$W/o/w2" "$W/o/m2" && cat "$W/o/m2/$(basename "$S")"; r=$?; umount "$W/o/m2"; umount "$W/o/m" "$W/o"; exit $r`},
		{name: "copy that an overlay makes when it is written to", who: rootOnly, targets: byName, sh: overlay + `echo x >>"$W/o/m/$(basename "$S")"; cat "$W/o/u/$(basename "$S")"; r=$?; umount "$W/o/m" "$W/o"; exit $r`},
		{name: "copy that an overlay makes when its mode changes", who: rootOnly, targets: byName, sh: overlay + `chmod 700 "$W/o/m/$(basename "$S")"; cat "$W/o/u/$(basename "$S")"; r=$?; umount "$W/o/m" "$W/o"; exit $r`},
		{name: "copy that an overlay of a user namespace makes", who: rootOnly, targets: byName, sh: `unshare -Urm sh -c '` + overlay + `chmod 700 "$W/o/m/$(basename "$S")"; cat "$W/o/u/$(basename "$S")"'`},
		{name: "mount at a path longer than a path may be", targets: byName, sh: `cd "$W" && ` + inNamespace + `n=$(printf %0200d 0); p=$n/$n/$n/$n/$n/$n/$n/$n; for i in 1 2 3; do mkdir -p $p && cd -P $p || cd ./$p; done; mkdir b && mount -c --bind "$(dirname "$S")" ./b && cat "./b/$(basename "$S")"'`},
		{name: "namespaces entered again", who: rootOnly, targets: byName, sh: `unshare -mpf nsenter -t 1 -m -u -i -n cat "$S"`},
		{name: "mount namespace nested five deep", targets: byName, sh: `mkdir "$W/b" && unshare -Urm unshare -Urm unshare -Urm unshare -Urm unshare -Urm sh -c 'mount --rbind "$(dirname "$S")" "$W/b" && cat "$W/b/$(basename "$S")"'`},
		{name: "out of a chroot by a descriptor", who: rootOnly, targets: byName, sh: jail + `exec 5</ && chroot "$D" /w/cat "/proc/self/fd/5$S" || { mkdir "$D/w/proc" && mount --bind /proc "$D/w/proc" && chroot "$D" /w/cat "/w/proc/self/fd/5$S"; r=$?; umount "$D/w/proc"; exit $r; }`},
		{name: "mount namespace that is gone", targets: byName, sh: `mkdir "$W/b" && mkfifo "$W/f" && { $NS -m sh -c 'mount --rbind "$(dirname "$S")" "$W/b" && cd "$W/b" && : >"$W/up" && umount -l "$W/b" && read x <"$W/f" && cat "./$(basename "$S")"' >"$W/got" 2>&1 & } && until test -e "$W/up"; do :; done; echo go >"$W/f"; wait; cat "$W/got"`},
	}
}

const inNamespace = `$NS -m sh -c '`

func descriptorsMore() []way {
	return []way{
		{name: "io_uring read by a worker", targets: byName, code: held(ringReadAs(inWorker, 0, false))},
		{name: "io_uring read by the kernel's own thread", targets: byName, code: held(ringReadAs(0, ringPolled, false))},
		{name: "io_uring read of a registered file", targets: byName, code: held(ringReadAs(fixedFile, 0, true))},
		{name: "positioned vectors of a held descriptor", targets: byName, code: held(positionedVectors)},
		{name: "vmsplice of a mapping of a held descriptor", targets: byName, code: held(vmspliced)},
		{name: "tee of what was spliced from a held descriptor", targets: byName, code: held(teed)},
		{name: "relative to a held directory", targets: byName, code: heldDirectory},
		{name: "held descriptor in a child that never execs", targets: byName, sh: `exec 5<"$D/w/mine"; (exec 5<"$S"; cat <&5)`},
		{name: "mapping of another process through map_files", who: rootOnly, targets: byName, code: mapFiles},
		{name: "event of fanotify brings a descriptor", who: rootOnly, targets: source, code: fanotified},
		{name: "read of a held named pipe", targets: pipes, code: heldPipe},
		{name: "read of a held named pipe of a mount that is gone", who: rootOnly, targets: pipes, limit: limitGone, code: heldPipeOfNowhere},
		{name: "held named pipe opened again through /proc", targets: pipes, code: heldPipeAgain},
		{name: "read of a held device", targets: devices, code: heldDevice},
		{name: "mapping of a held device", targets: devices, code: heldDeviceMapped},
		{name: "loop device upon a held descriptor", who: rootOnly, targets: long, limit: limitLoop, code: heldLoop},
	}
}

// mappings that are older than the policies.
func mappings() []way {
	return []way{
		{name: "a mapping of before is read", targets: byName, limit: limitMapped, code: mappedBefore},
		{name: "a mapping of before is grown by mremap", targets: long, limit: limitMapped, code: grownMapping},
		{name: "a mapping of before shows another page by remap_file_pages", targets: long, limit: limitMapped, code: otherPage},
		{name: "a mapping of before is made executable", targets: tool, code: raisedToRun},
		{name: "a copy of a mapping of before by mremap with length 0", targets: long, limit: limitMapped, code: duplicatedMapping},
	}
}

func writesMore() []way {
	return []way{
		{name: "times by name", who: rootOnly, targets: ro, sh: `touch -d @5 "$S"`},
		{name: "times set to now", targets: ro, sh: `touch -c "$S" && sleep 0.02 && touch -cm "$S"`},
		{name: "times of a held descriptor", who: rootOnly, targets: ro, code: held(timesChanged)},
		{name: "times of an O_PATH descriptor", who: rootOnly, targets: ro, code: timesByPath},
		{name: "flags of a held descriptor", who: rootOnly, targets: ro, code: held(flagsChanged)},
		{name: "flags by name", who: rootOnly, targets: ro, sh: `chattr +d "$S"`},
		{name: "extended flags of a held descriptor", who: rootOnly, targets: ro, code: held(extendedFlagsChanged)},
		{name: "file capability", who: rootOnly, targets: ro, sh: `setcap cap_net_raw+ep "$S"`},
		{name: "hole punched by madvise", targets: ro, code: heldForWriting(advised)},
		{name: "io_uring write by a worker", targets: ro, code: heldForWriting(ringWriteAsync)},
		{name: "io_uring fallocate of a held descriptor", targets: ro, code: heldForWriting(ringFallocate)},
		{name: "write in an overlay's upper layer", who: rootOnly, targets: ro, sh: upper + `echo x >>"$W/m/file"; umount "$W/m"`},
		{name: "chmod in an overlay's upper layer", who: rootOnly, targets: ro, sh: upper + `chmod 700 "$W/m/file"; umount "$W/m"`},
		{name: "truncate in an overlay's upper layer", who: rootOnly, targets: ro, sh: upper + `truncate -s 3 "$W/m/file"; umount "$W/m"`},
		{name: "times in an overlay's upper layer", who: rootOnly, targets: ro, sh: upper + `touch -d @5 "$W/m/file"; umount "$W/m"`},
		{name: "file renamed over it in an overlay's upper layer", who: rootOnly, targets: ro, sh: upper + `: >"$W/m/new" && mv -f "$W/m/new" "$W/m/file"; umount "$W/m"`},
		{name: "unlink in an overlay's upper layer", who: rootOnly, targets: ro, sh: upper + `rm -f "$W/m/file"; umount "$W/m"`},
		{name: "unlink in the upper layer of an overlay of a user namespace", targets: ro, sh: `unshare -Urm sh -c '` + upper + `rm -f "$W/m/file"'`},
		{name: "rename in an overlay's upper layer", who: rootOnly, targets: ro, sh: upper + `mv "$W/m/file" "$W/m/other"; umount "$W/m"`},
		{name: "write through the mount of another process", targets: ro, sh: `mkdir "$W/b" && { $NS -m sh -c 'mount --rbind "$(dirname "$S")" "$W/b" && : >"$W/up" && exec sleep 60' & } && until test -e "$W/up"; do :; done && echo x >>"/proc/$!/root$W/b/$(basename "$S")"; r=$?; kill $!; exit $r`},
		{name: "core dump over it", who: rootOnly, targets: ro, sh: `cat /proc/sys/kernel/core_pattern >"$W/was"; echo "$S" >/proc/sys/kernel/core_pattern; ulimit -c unlimited; sh -c 'kill -SEGV $$'; cat "$W/was" >/proc/sys/kernel/core_pattern`},
		{name: "swap area made of it", who: rootOnly, targets: ro, sh: `truncate -s 1M "$S" && mkswap "$S" && swapon "$S"; r=$?; swapoff "$S"; exit $r`},
		{name: "process accounting into it", who: rootOnly, targets: ro, code: accounted},
		{name: "loop device written to", who: rootOnly, targets: ro, sh: `modprobe loop; l=$(losetup -f) && losetup "$l" "$S" && dd if=/dev/zero of="$l" bs=1 count=1 conv=fsync; truncate -s 4096 "$S" && losetup -c "$l"; dd if=/dev/zero of="$l" bs=1 count=4 conv=fsync; r=$?; losetup -d "$l"; exit $r`},
		{name: "a mapping of before is written to", targets: ro, limit: limitMapped, code: writtenMapping},
		{name: "io_uring rename", targets: ro, code: ringRename},
		{name: "io_uring unlink", targets: ro, code: ringUnlink},
		{name: "directory swapped by a symlink", targets: ro, sh: `mv "$D/ro" "$W/away" && ln -s "$W/away" "$D/ro" && echo x >>"$D/ro/file"`},
		{name: "hard link made before, written", targets: ro, code: writeLinkBefore},
	}
}

// upper makes the object's directory the layer of an overlay that changes go to.
const upper = `mkdir -p "$W/l" "$W/m" "$D/k" && mount -t overlay o -o "lowerdir=$W/l,upperdir=$(dirname "$S"),workdir=$D/k" "$W/m" && `

// lower is a file that the layer below has, of the object's name.
const lower = `mkdir "$W/l" && : >"$W/l/$(basename "$S")" && `

// lists of a blocked directory: the token is the name of a file in it.
func lists() []way {
	return []way{
		{name: "list", targets: listed, sh: `ls "$S"`},
		{name: "list of a held directory", targets: listed, code: heldList},
		{name: "list through /proc/self/cwd", targets: listed, sh: `cd "$S" && ls /proc/self/cwd/`},
		{name: "list in a bind mount of a mount namespace", targets: listed, sh: `mkdir "$W/b" && $NS -m sh -c 'mount --rbind "$S" "$W/b" && ls "$W/b"'`},
		{name: "list through a held directory opened again", targets: listed, code: heldListAgain},
		{name: "list through an overlay", who: rootOnly, targets: listed, sh: overlayOf + `ls "$W/o/m"; r=$?; umount "$W/o/m" "$W/o"; exit $r`},
		{name: "list through an overlay of a user namespace", targets: listed, sh: `unshare -Urm sh -c '` + overlayOf + `ls "$W/o/m"'`},
		{name: "list through an overlay of two layers", who: rootOnly, targets: listed, sh: `mkdir "$W/o" "$W/e" && mount -t overlay o -o "lowerdir=$W/e:$S" "$W/o" && ls "$W/o"; r=$?; umount "$W/o"; exit $r`},
		{name: "list through an overlay of the directory above", who: rootOnly, targets: listed, sh: overlay + `ls "$W/o/m/listed"; r=$?; umount "$W/o/m" "$W/o"; exit $r`},
		{name: "list by a file handle", who: rootOnly, targets: listed, code: listHandle},
	}
}

const overlayOf = `mkdir -p "$W/o" && mount -t tmpfs o "$W/o" && mkdir "$W/o/u" "$W/o/w" "$W/o/m" && mount -t overlay o -o "lowerdir=$S,upperdir=$W/o/u,workdir=$W/o/w" "$W/o/m" && `

// makings of something in a blocked directory: the attempt says the token when it is there.
func makings() []way {
	const said = ` && echo ` + token
	return []way{
		{name: "create", targets: made, sh: `: >"$S"` + said},
		{name: "make a directory", targets: made, sh: `mkdir "$S"` + said},
		{name: "make a named pipe", targets: made, sh: `mkfifo "$S"` + said},
		{name: "make a symlink", targets: made, sh: `ln -s /etc "$S"` + said},
		{name: "hard link into it", targets: made, sh: `: >"$W/n" && ln "$W/n" "$S"` + said},
		{name: "rename into it", targets: made, sh: `: >"$W/n" && mv "$W/n" "$S"` + said},
		{name: "create in a bind mount of a mount namespace", targets: made, sh: `mkdir "$W/b" && $NS -m sh -c 'mount --rbind "$(dirname "$S")" "$W/b" && : >"$W/b/$(basename "$S")"'` + said},
		{name: "create through a held directory", targets: made, sh: `exec 5<"$D" && : >"/proc/self/fd/5/$T"` + said},
		{name: "create in an overlay's upper layer", who: rootOnly, targets: made, sh: upper + `: >"$W/m/$(basename "$S")"; umount "$W/m"; test -e "$S"` + said},
		{name: "make a directory in an overlay's upper layer", who: rootOnly, targets: made, sh: upper + `mkdir "$W/m/$(basename "$S")"; umount "$W/m"; test -e "$S"` + said},
		{name: "copy that an overlay makes into its upper layer", who: rootOnly, targets: made, sh: lower + upper + `echo x >>"$W/m/$(basename "$S")"; umount "$W/m"; test -e "$S"` + said},
		{name: "create in the upper layer of an overlay of a user namespace", targets: made, sh: `unshare -Urm sh -c '` + upper + `: >"$W/m/$(basename "$S")"'; test -e "$S"` + said},
		{name: "copy into the upper layer of an overlay of a user namespace", targets: made, sh: lower + `unshare -Urm sh -c '` + upper + `echo x >>"$W/m/$(basename "$S")"'; test -e "$S"` + said},
	}
}

func runsMore() []way {
	return []way{
		{name: "script", targets: script, sh: `"$S"`},
		{name: "script through a symlink", targets: script, sh: `ln -s "$S" "$W/l" && "$W/l"`},
		{name: "script by descriptor", targets: script, sh: `exec 5<"$S" && /proc/self/fd/5`},
		{name: "script as the interpreter of a script", targets: script, sh: `printf '#!%s\n' "$S" >"$W/s" && chmod 755 "$W/s" && "$W/s"`},
		{name: "chain of scripts to the program", targets: tool, sh: `printf '#!%s ` + token + `\n' "$S" >"$W/s1" && printf '#!%s\n' "$W/s1" >"$W/s2" && printf '#!%s\n' "$W/s2" >"$W/s3" && chmod 755 "$W/s1" "$W/s2" "$W/s3" && "$W/s3"`},
		{name: "by env", targets: runnable, sh: `env "$S" ` + token},
		{name: "by a program of the root's own", targets: runnable, sh: `setpriv --no-new-privs nice "$S" ` + token},
		{name: "exec of a running program through /proc", targets: tool, code: runRunning},
		{name: "exec by the loader through its own name as an argument", targets: tool, sh: `/lib64/ld-linux-x86-64.so.2 --argv0 x "$S" ` + token},
		{name: "exec through the loader of a hard link", targets: tool, sh: `ln "$S" "$W/l" && /lib64/ld-linux-x86-64.so.2 "$W/l" ` + token},
		{name: "exec after exchange with another program", targets: tool, code: runExchanged},
		{name: "exec in the file system mounted once more", who: rootOnly, targets: runnable, sh: `mkdir "$W/b" && mount "$(findmnt -no SOURCE /)" "$W/b" && "$W/b$S" ` + token + `; r=$?; umount "$W/b"; exit $r`},
		{name: "exec in a pivoted root", who: rootOnly, targets: tool, sh: `mkdir "$W/b" && $NS -m sh -c 'mount --rbind / "$W/b" && cd "$W/b" && pivot_root . . && exec "$S" ` + token + `'`},
		{name: "exec of a copy", targets: tool, limit: limitCopy, sh: `cp "$S" "$W/c" && "$W/c" ` + token},
		{name: "exec of a copy in memory", targets: tool, limit: limitCopy, code: runMemory},
		{name: "script given to its interpreter", targets: script, limit: limitCopy, sh: `sh "$S"`},
	}
}

// runsByKernel are runs by what the kernel starts.
func runsByKernel() []way {
	const got = `; i=0; while [ $i -lt 50 ] && ! test -s "$W/got"; do sleep 0.1; i=$((i+1)); done; cat "$W/got"`
	return []way{
		{name: "started for a core dump", who: rootOnly, targets: script, sh: `cat /proc/sys/kernel/core_pattern >"$W/was"; echo "|$S" >/proc/sys/kernel/core_pattern; sh -c 'kill -SEGV $$'; cat "$W/was" >/proc/sys/kernel/core_pattern` + got},
		{name: "started by a control group that empties", who: rootOnly, targets: script, sh: `mkdir -p /tmp/evade-v1 && mount -t cgroup -o none,name=evade c /tmp/evade-v1 && echo "$S" >/tmp/evade-v1/release_agent && mkdir /tmp/evade-v1/x && echo 1 >/tmp/evade-v1/x/notify_on_release && sh -c 'echo $$ >/tmp/evade-v1/x/cgroup.procs'` + got + `; r=$?; rmdir /tmp/evade-v1/x; umount /tmp/evade-v1; exit $r`},
		{name: "binary format registered before with the program open", who: rootOnly, targets: tool, code: runRegistered},
	}
}

func sourcesMore() []way {
	return []way{
		{name: "a script of the program's name", targets: source, sh: `printf '#!/bin/cat\n' >"$W/updater" && chmod 755 "$W/updater" && "$W/updater" "$S"`},
		{name: "a symlink of the program's name", targets: source, sh: `mkdir "$W/x" && ln -s /bin/cat "$W/x/updater" && "$W/x/updater" "$S"`},
		{name: "its child", targets: source, sh: `sh -c 'exec 5<"$S"; cat <&5'`},
		{name: "it as the interpreter's argument", targets: source, sh: `/bin/sh -c 'cat "$1"' "$D/bin/updater" "$S"`},
		{name: "an overlay over the program's directory", targets: source, sh: `unshare -Urm sh -c 'mkdir "$W/u" "$W/k" && cp "$D/bin/other" "$W/u/updater" && mount -t overlay o -o "lowerdir=$D/bin,upperdir=$W/u,workdir=$W/k" "$D/bin" && "$D/bin/updater" "$S"'`},
		{name: "its path in another's root", targets: source, sh: posed + `unshare -Urm sh -c 'mount --bind "$D" "$W/r/w" && cd "$W/r" && mount --rbind "$W/r" "$W/r" && cd "$W/r" && pivot_root . . && exec "$D/bin/updater" "/w/$T"'`},
	}
}

// races against the reading of a path, and while the file system is busy.
func races() []way {
	const loop = `i=0; while [ $i -lt 60 ]; do `
	return []way{
		{name: "symlink that is changed meanwhile", targets: byName, sh: `{ while :; do ln -sfn "$W/mine" "$W/l"; ln -sfn "$S" "$W/l"; done; } 2>/dev/null & p=$!; ` + loop + `cat "$W/l"; i=$((i+1)); done; kill $p`},
		{name: "renames under load", targets: byName, code: raced(renameAround)},
		{name: "exchanged with another file meanwhile", targets: exact, code: raced(exchangeAround)},
		{name: "mounts that come and go meanwhile", who: rootOnly, targets: byName, code: raced(mountAround)},
		{name: "linked and unlinked meanwhile", targets: exact, code: raced(linkAround)},
	}
}
