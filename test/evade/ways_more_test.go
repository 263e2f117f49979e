// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

// descriptors that were opened before the policies, or come from somebody else.
func descriptors() []way {
	return []way{
		{name: "read of a held descriptor", targets: byName, code: held(plainRead)},
		{name: "pread of a held descriptor", targets: byName, code: held(positionedRead)},
		{name: "readv of a held descriptor", targets: byName, code: held(vectorRead)},
		{name: "io_uring read of a held descriptor", targets: byName, code: held(ringRead)},
		{name: "asynchronous read of a held descriptor", targets: byName, code: held(asynchronousRead)},
		{name: "mapping of a held descriptor", targets: byName, code: held(mappedRead)},
		{name: "sendfile from a held descriptor", targets: byName, code: held(sentFile)},
		{name: "splice from a held descriptor", targets: byName, code: held(spliced)},
		{name: "copy_file_range from a held descriptor", targets: byName, code: held(copiedRange)},
		{name: "held descriptor opened again through /proc", targets: byName, code: held(reopened)},
		{name: "descriptor received over a socket", targets: byName, code: passed},
		{name: "descriptor inherited by a new program", targets: byName, code: held(inherited)},
		{name: "descriptor taken by pidfd_getfd", who: rootOnly, targets: byName, code: taken},
		{name: "descriptor of another process through /proc", targets: byName, code: otherProcess},
	}
}

// writes of a file that is read-only by rule.
func writes() []way {
	return []way{
		{name: "open for writing", targets: ro, sh: `echo x >"$S"`},
		{name: "open for appending", targets: ro, sh: `echo x >>"$S"`},
		{name: "open for reading and writing", targets: ro, sh: `echo x 1<>"$S"`},
		{name: "open for reading that truncates", targets: ro, code: truncatingOpen},
		{name: "truncate by name", targets: ro, sh: `truncate -s 3 "$S"`},
		{name: "write through another name", targets: ro, sh: `ln "$S" "$W/l" && echo x >"$W/l"`},
		{name: "unlink", targets: ro, sh: `rm -f "$S"`},
		{name: "rename away", targets: ro, sh: `mv "$S" "$W/m"`},
		{name: "another file renamed over it", targets: ro, sh: `echo x >"$W/n" && mv -f "$W/n" "$S"`},
		{name: "exchange", targets: ro, code: exchangeReadOnly},
		{name: "chmod", who: rootOnly, targets: ro, sh: `chmod 700 "$S"`},
		{name: "chown", who: rootOnly, targets: ro, sh: `chown 5:5 "$S"`},
		{name: "extended attribute", targets: ro, code: setAttribute},
		{name: "access control list", who: rootOnly, targets: ro, code: setACL},
		{name: "write in a bind mount of a mount namespace", targets: ro, sh: `: >"$W/b" && $NS -m sh -c 'mount --bind "$S" "$W/b" && echo x >>"$W/b"'`},
		{name: "directory renamed, then written", targets: ro, sh: `mv "$D/ro" "$D/gone" && echo x >"$D/gone/file"; r=$?; mv "$D/gone" "$D/ro"; exit $r`},
		{name: "write to a held descriptor", targets: ro, code: heldForWriting(plainWrite)},
		{name: "pwritev to a held descriptor", targets: ro, code: heldForWriting(vectorWrite)},
		{name: "io_uring write to a held descriptor", targets: ro, code: heldForWriting(ringWrite)},
		{name: "ftruncate of a held descriptor", targets: ro, code: heldForWriting(truncated)},
		{name: "fallocate of a held descriptor", targets: ro, code: heldForWriting(punched)},
		{name: "shared mapping of a held descriptor", targets: ro, code: heldForWriting(mappedWrite)},
		{name: "mapping made writable by mprotect", targets: ro, code: heldForWriting(protectedWrite)},
		{name: "copy_file_range to a held descriptor", targets: ro, code: heldForWriting(copiedTo)},
		{name: "splice to a held descriptor", targets: ro, code: heldForWriting(splicedTo)},
		{name: "fchmod of a held descriptor", who: rootOnly, targets: ro, code: heldForWriting(modeChanged)},
		{name: "fsetxattr of a held descriptor", targets: ro, code: heldForWriting(attributeChanged)},
	}
}

// runs of a program that is blocked.
func runs() []way {
	return []way{
		{name: "plain exec", targets: tool, sh: `"$S" ` + token},
		{name: "exec by a relative name", targets: tool, sh: `cd "$D/bin" && ./tool ` + token},
		{name: "exec of a symlink", targets: tool, sh: `ln -s "$S" "$W/l" && "$W/l" ` + token},
		{name: "exec of a hard link", targets: tool, sh: `ln "$S" "$W/l" && "$W/l" ` + token},
		{name: "exec of a hard link made before", targets: tool, code: runLinkBefore},
		{name: "exec of a renamed program", targets: tool, sh: `mv "$S" "$W/m" && "$W/m" ` + token},
		{name: "exec by descriptor", targets: tool, code: runDescriptor},
		{name: "exec through /proc/self/fd", targets: tool, sh: `exec 5<"$S" && /proc/self/fd/5 ` + token},
		{name: "exec through the dynamic loader", targets: tool, sh: `/lib64/ld-linux-x86-64.so.2 "$S" ` + token},
		{name: "exec through the loader by descriptor", targets: tool, sh: `exec 5<"$S" && /lib64/ld-linux-x86-64.so.2 /proc/self/fd/5 ` + token},
		{name: "exec through a copy of the loader", targets: tool, sh: `cp /lib64/ld-linux-x86-64.so.2 "$W/ld" && "$W/ld" "$S" ` + token},
		{name: "exec as the interpreter of a script", targets: tool, sh: `printf '#!%s ` + token + `\n' "$S" >"$W/s" && chmod 755 "$W/s" && "$W/s"`},
		{name: "exec in a bind mount of a mount namespace", targets: tool, sh: `cp "$S" "$W/x" 2>/dev/null; : >"$W/b" && $NS -m sh -c 'mount --bind "$S" "$W/b" && "$W/b" ` + token + `'`},
		{name: "exec over another program's name", targets: tool, sh: `$NS -m sh -c 'mount --bind "$S" "$D/bin/other" && "$D/bin/other" ` + token + `'`},
		{name: "exec in a chroot", who: rootOnly, targets: tool, sh: `mkdir "$W/b" && mount --rbind / "$W/b" && chroot "$W/b" "$S" ` + token + `; r=$?; umount -l "$W/b"; exit $r`},
		{name: "exec of an overlay's copy", targets: tool, sh: `unshare -Urm sh -c '` + overlay + `"$W/o/m/tool" ` + token + `'`},
		{name: "exec in a PID namespace", targets: tool, sh: `$NS -mpf "$S" ` + token},
		{name: "exec by a binary format", who: rootOnly, targets: tool, sh: `mount -t binfmt_misc b /proc/sys/fs/binfmt_misc 2>/dev/null; printf ':evade:E::evd::%s:' "$S" >/proc/sys/fs/binfmt_misc/register && : >"$W/x.evd" && chmod 755 "$W/x.evd" && "$W/x.evd" ` + token + `; r=$?; echo -1 >/proc/sys/fs/binfmt_misc/evade; exit $r`},
	}
}

// sources that a program poses as: an Allow is for one program, everything else is blocked.
func sources() []way {
	return []way{
		{name: "another program", targets: source, sh: `"$D/bin/other" "$S"`},
		{name: "a program of the same name", targets: source, sh: `cp "$D/bin/other" "$W/updater" && "$W/updater" "$S"`},
		{name: "the name as argv[0]", targets: source, sh: `bash -c 'exec -a "$D/bin/updater" cat "$S"'`},
		{name: "a hard link of the program", targets: source, sh: `ln "$D/bin/updater" "$W/u" && "$W/u" "$S"`},
		{name: "another program mounted over it", targets: source, sh: `$NS -m sh -c 'mount --bind "$D/bin/other" "$D/bin/updater" && "$D/bin/updater" "$S"'`},
		{name: "another program at its path in a chroot", targets: source, sh: posed + `unshare -Urm sh -c 'mount --bind "$D" "$W/r/w" && chroot "$W/r" "$D/bin/updater" "/w/$T"'`},
		{name: "its path made anew in a mount namespace", targets: source, sh: `cp "$D/bin/other" "$W/x" && $NS -m sh -c 'exec 5<"$D/only" 6<"$W" && mount -t tmpfs t "$D/bin" && cp /proc/self/fd/6/x "$D/bin/updater" && "$D/bin/updater" "$S"'`},
		{name: "the program through the loader", targets: source, sh: `/lib64/ld-linux-x86-64.so.2 "$D/bin/updater" "$S"`},
		{name: "its name as the process name", targets: source, code: posedName},
	}
}

// posed makes a root directory with another program at the updater's path.
const posed = `mkdir -p "$W/r$D/bin" "$W/r/w" && cp "$CAT" "$W/r$D/bin/updater" && `
