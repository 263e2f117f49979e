// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// maxLinks is how many symlinks one path may lead through, as in the kernel.
const maxLinks = 40

// Resolve follows the symlinks of absolute paths below root and returns those that lead elsewhere: the path
// as given, and where it leads. A directory keeps its trailing slash. What does not exist yet is resolved as
// far as it does; what cannot be resolved (too many links) is left out, and stands for itself.
//
// /proc/self and /proc/thread-self are no links here: they lead each process somewhere else. Nor are links that
// somebody else than root or this user made: whoever may write a directory that a policy names could otherwise
// turn its rules against any program of the host, or have them all held for the host's safety.
func Resolve(root fs.FS, paths []string) map[string]string {
	return newResolver(root).all(paths)
}

func newResolver(root fs.FS) *resolver {
	return &resolver{root: root, known: map[string]string{"/": "/"}}
}

// all is what Resolve answers.
func (r *resolver) all(paths []string) map[string]string {
	aliases := map[string]string{}
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") {
			continue
		}
		resolved, ok := r.resolve("/", p, 0)
		if !ok {
			continue
		}
		if strings.HasSuffix(p, "/") && resolved != "/" {
			resolved += "/"
		}
		if resolved != p {
			aliases[p] = resolved
		}
	}
	return aliases
}

// resolver remembers what each component was, because the paths of a ruleset share most directories.
type resolver struct {
	root fs.FS
	// known maps a resolved directory and one component below it to where that leads.
	known map[string]string
}

// resolve follows p, which is relative to the resolved directory base or absolute.
func (r *resolver) resolve(base, p string, links int) (string, bool) {
	if strings.HasPrefix(p, "/") {
		base = "/"
	}
	for component := range strings.SplitSeq(p, "/") {
		switch component {
		case "", ".":
			continue
		case "..":
			base = path.Dir(base)
			continue
		}
		next, ok := r.step(base, component, links)
		if !ok {
			return "", false
		}
		base = next
	}
	return base, true
}

// step goes from a resolved directory one component down, through a symlink if it is one.
func (r *resolver) step(base, component string, links int) (string, bool) {
	at := strings.TrimSuffix(base, "/") + "/" + component
	if known, ok := r.known[at]; ok {
		return known, known != ""
	}
	resolved, ok := at, true
	if target := r.readLink(at); target != "" {
		if links == maxLinks {
			return "", false
		}
		resolved, ok = r.resolve(base, target, links+1)
	}
	r.known[at] = resolved
	return resolved, ok
}

// readLink is where a symlink points to; empty for what is none, or cannot be read.
func (r *resolver) readLink(at string) string {
	if at == "/proc/self" || at == "/proc/thread-self" {
		return ""
	}
	name := strings.TrimPrefix(at, "/")
	info, err := fs.Lstat(r.root, name)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 || !trusted(info) {
		return ""
	}
	target, err := fs.ReadLink(r.root, name)
	if err != nil {
		return ""
	}
	return target
}

// trusted is false for what belongs to neither root nor the user who asks.
func trusted(info fs.FileInfo) bool {
	stat, known := info.Sys().(*syscall.Stat_t)
	return !known || stat.Uid == 0 || int(stat.Uid) == os.Geteuid()
}
