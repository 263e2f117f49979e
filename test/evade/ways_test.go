// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

// who carries a way out.
type who int

const (
	anybody  who = iota // root, and an unprivileged user
	rootOnly            // it takes a privilege
)

// way is one trick. In a shell line $D is the world, $W a directory that everybody may write, $S the protected file,
// and $NS the words that give a process namespaces of its own: unshare with a user namespace where the caller is no root.
type way struct {
	name string
	who  who
	// targets are the protected files that the trick is for, below the world; each is tried by itself.
	targets []string
	// sh is the attempt, or code begins it before the policies are published and returns the rest of it.
	sh   string
	code func(dir, target string) (func() ([]byte, error), error)
	// limit is named by a way that is known to lead round: a word of docs/gaps.md, which says why.
	limit string
	group string
	// more are policies beside those of every way; D is the world.
	more string
}

// What a rule protects by name alone, and what an exact path protects as a file too.
var (
	exact  = []string{"exact/secret"}
	byName = []string{"exact/secret", "tree/sub/secret", "keys/secret.key"}
	source = []string{"only/f"}
	ro     = []string{"ro/file"}
	tool   = []string{"bin/tool"}
)

func ways() []way {
	var all []way
	for _, group := range []struct {
		name string
		ways [][]way
	}{
		{"Spellings of a path", [][]way{spellings(), spellingsMore(), calls32()}},
		{"Other names of the object", [][]way{otherNames(), otherNamesMore(), clones()}},
		{"Namespaces, roots and mounts", [][]way{namespaces(), stacks(), borrowings()}},
		{"Descriptors and mappings", [][]way{descriptors(), descriptorsMore(), mappings()}},
		{"Changes of what is read-only", [][]way{writes(), writesMore(), writes32()}},
		{"Lists of a directory", [][]way{lists()}},
		{"Making something in a blocked directory", [][]way{makings(), makingsMore()}},
		{"Runs of a program", [][]way{runs(), runsMore(), runsByKernel()}},
		{"Posing as a source", [][]way{sources(), sourcesMore(), inside()}},
		{"Races", [][]way{races(), racesLate()}},
	} {
		for _, list := range group.ways {
			for _, w := range list {
				w.group = group.name
				all = append(all, w)
			}
		}
	}
	return all
}

// spellings of a path.
func spellings() []way {
	return []way{
		{name: "plain open", targets: byName, sh: `cat "$S"`},
		{name: "dot dot and doubled slashes", targets: byName, sh: `cat "$D/w/..//./$T"`},
		{name: "relative to the directory", targets: byName, sh: `cd "$(dirname "$S")" && cat "./$(basename "$S")"`},
		{name: "through /proc/self/cwd", targets: byName, sh: `cd "$(dirname "$S")" && cat "/proc/self/cwd/$(basename "$S")"`},
		{name: "through /proc/self/root", targets: byName, sh: `cat "/proc/self/root$S"`},
		{name: "through a directory's descriptor", targets: byName, sh: `exec 5<"$D" && cat "/proc/self/fd/5/$T"`},
		{name: "symlink", targets: byName, sh: `ln -s "$S" "$W/l" && cat "$W/l"`},
		{name: "chain of symlinks through a directory", targets: byName, sh: `ln -s "$D" "$W/d" && ln -s "$W/d/$T" "$W/l" && cat "$W/l"`},
		{name: "symlink to /proc/self/root", targets: byName, sh: `ln -s "/proc/self/root$S" "$W/l" && cat "$W/l"`},
		{name: "copy on the same file system", targets: byName, sh: `cp --reflink=auto "$S" "$W/c" && cat "$W/c"`},
		{name: "openat2 with RESOLVE_IN_ROOT", targets: byName, code: readOpenat2},
		{name: "io_uring open", targets: byName, code: readRing},
		{name: "file handle", who: rootOnly, targets: byName, code: readHandle},
		{name: "O_PATH and again through /proc/self/fd", targets: byName, code: readPathDescriptor},
	}
}

// otherNames of an object that an exact path protects.
func otherNames() []way {
	return []way{
		{name: "hard link made before", targets: exact, code: linkBefore},
		{name: "hard link", targets: exact, sh: `ln "$S" "$W/l" && cat "$W/l"`},
		{name: "hard link through /proc/self/fd", targets: exact, code: linkDescriptor},
		{name: "rename", targets: exact, sh: `mv "$S" "$W/m" && cat "$W/m"`},
		{name: "exchange with another file", targets: exact, code: exchange},
		{name: "rename of the directory", targets: exact, sh: `mv "$D/exact" "$D/gone" && cat "$D/gone/secret"`},
		{name: "rename of a directory above", who: rootOnly, targets: exact, sh: `mv "$D" "$D.gone" && cat "$D.gone/exact/secret"; r=$?; mv "$D.gone" "$D"; exit $r`},
		{name: "symlink in the place of the directory", targets: exact, sh: `mv "$D/exact" "$D/gone" && ln -s "$D/gone" "$D/exact" && cat "$S"`},
		{name: "bind mount of the file", who: rootOnly, targets: exact, sh: `: >"$W/b" && mount --bind "$S" "$W/b" && cat "$W/b"; r=$?; umount "$W/b"; exit $r`},
		{name: "bind mount of the directory", who: rootOnly, targets: exact, sh: `mkdir "$W/b" && mount --bind "$D/exact" "$W/b" && cat "$W/b/secret"; r=$?; umount "$W/b"; exit $r`},
		{name: "recursive bind mount of the root", who: rootOnly, targets: exact, sh: `mkdir "$W/b" && mount --rbind / "$W/b" && cat "$W/b$S"; r=$?; umount -l "$W/b"; exit $r`},
		{name: "the file system mounted once more", who: rootOnly, targets: exact, sh: `mkdir "$W/b" && mount "$(findmnt -no SOURCE /)" "$W/b" && cat "$W/b$S"; r=$?; umount "$W/b"; exit $r`},
		{name: "overlay over the directory", who: rootOnly, targets: byName, sh: overlay + `cat "$W/o/m/$(basename "$S")"; r=$?; umount "$W/o/m" "$W/o"; exit $r`},
		{name: "loop device", who: rootOnly, targets: []string{"exact/long"}, sh: `modprobe loop; l=$(losetup -f --show "$S") && cat "$l"; r=$?; losetup -d "$l"; exit $r`},
	}
}

const overlay = `mkdir -p "$W/o" && mount -t tmpfs o "$W/o" && mkdir "$W/o/u" "$W/o/w" "$W/o/m" && mount -t overlay o -o "lowerdir=$(dirname "$S"),upperdir=$W/o/u,workdir=$W/o/w" "$W/o/m" && `

// namespaces and roots of the process's own: none is a way out of the subject.
func namespaces() []way {
	return []way{
		{name: "mount namespace", targets: byName, sh: `$NS -m cat "$S"`},
		{name: "user namespace", targets: byName, sh: `unshare -Ur cat "$S"`},
		{name: "PID namespace", targets: byName, sh: `$NS -mpf --mount-proc cat "$S"`},
		{name: "every namespace at once", targets: byName, sh: `unshare -Urmpfinu --mount-proc cat "$S"`},
		{name: "user namespaces nested", targets: byName, sh: `unshare -Ur unshare -Urm cat "$S"`},
		{name: "bind mount of the file in a mount namespace", targets: byName, sh: `: >"$W/b" && $NS -m sh -c 'mount --bind "$S" "$W/b" && cat "$W/b"'`},
		{name: "bind mount of the directory in a mount namespace", targets: byName, sh: `mkdir "$W/b" && $NS -m sh -c 'mount --rbind "$(dirname "$S")" "$W/b" && cat "$W/b/$(basename "$S")"'`},
		{name: "bind mount of the root in a mount namespace", targets: byName, sh: `mkdir "$W/b" && $NS -m sh -c 'mount --rbind / "$W/b" && cat "$W/b$S"'`},
		{name: "moved away in a mount namespace", targets: byName, sh: `mkdir "$W/b" && $NS -m sh -c 'd=$(dirname "$S") && mount --rbind "$d" "$d" && mount --make-rprivate / && mount --move "$d" "$W/b"; cat "$W/b/$(basename "$S")"'`},
		{name: "chroot", who: rootOnly, targets: byName, sh: jail + `chroot "$D" /w/cat "/$T"`},
		{name: "chroot in a user namespace", targets: byName, sh: jail + `unshare -Urm --root="$D" /w/cat "/$T"`},
		{name: "pivot_root", targets: byName, sh: `mkdir "$W/b" && ` + jail + `$NS -m sh -c 'mount --rbind "$D" "$W/b" && cd "$W/b" && pivot_root . . && exec /w/cat "/$T"'`},
		{name: "overlay in a user namespace", targets: byName, sh: `unshare -Urm sh -c '` + overlay + `cat "$W/o/m/$(basename "$S")"'`},
		{name: "detached tree", who: rootOnly, targets: byName, code: readDetached},
		{name: "mount namespace of another process", targets: byName, sh: `mkdir "$W/b" && { $NS -m sh -c 'mount --rbind "$(dirname "$S")" "$W/b" && : >"$W/up" && exec sleep 60' & } && until test -e "$W/up"; do :; done && cat "/proc/$!/root$W/b/$(basename "$S")"; r=$?; kill $!; exit $r`},
		{name: "tmpfs over the parent directory, a bind below", targets: byName, sh: `exec 5<"$(dirname "$S")" && $NS -m sh -c 'cd /proc/self/fd/5 && mount -t tmpfs t "$D" && cat "./$(basename "$S")"'`},
	}
}

// jail puts a program into the world that runs with nothing else beside it.
const jail = `cp "$CAT" "$W/cat" && `
