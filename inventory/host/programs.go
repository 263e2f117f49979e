// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/inventory"
)

// Programs finds the files by which the host stays manageable, below root, symlinks resolved.
func Programs(root fs.FS) inventory.Programs {
	f := finder{root: root, links: newResolver(root)}
	ssh := append(f.programs("sshd"), f.find("/usr/lib/openssh/sshd-session", "/usr/lib/openssh/sshd-auth", "/usr/libexec/openssh/sshd-session", "/usr/libexec/openssh/sshd-auth")...)
	modules, pam := f.pam()
	settings := f.sshd()
	if len(ssh) == 0 {
		settings = sshdSettings{}
	}
	return inventory.Programs{
		Init:       f.find("/sbin/init", "/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-executor", "/usr/lib/systemd/systemd-logind"),
		Shells:     f.find(f.shells()...),
		Consoles:   f.programs("agetty", "getty"),
		Logins:     f.programs("login", "unix_chkpwd"),
		Elevate:    f.programs("su", "sudo", "sulogin", "runuser"),
		SSH:        ssh,
		Runtimes:   f.programs("containerd", "containerd-shim", "containerd-shim-runc-v2", "runc", "crun", "dockerd", "crio", "conmon"),
		Kubelet:    f.programs("kubelet", "k3s"),
		Files:      append(f.find("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ld.so.cache"), f.libraries()...),
		LoginFiles: append(f.find("/etc/shadow", "/etc/pam.conf", "/etc/ssh/sshd_config", "/etc/sudoers"), pam...),
		Modules:    modules,
		SSHFiles:   settings.files,
		Ports:      settings.ports,
	}
}

type finder struct {
	root  fs.FS
	links *resolver
}

// find returns what exists of paths, resolved, each once.
func (f finder) find(paths ...string) []string {
	aliases := f.links.all(paths)
	var found []string
	for _, p := range paths {
		if alias, ok := aliases[p]; ok {
			p = alias
		}
		info, err := fs.Stat(f.root, strings.TrimPrefix(p, "/"))
		if err == nil && info.Mode().IsRegular() && !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	return found
}

// programs looks for programs where the system's own lie.
func (f finder) programs(names ...string) []string {
	var paths []string
	for _, name := range names {
		for _, dir := range [...]string{"/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin", "/usr/local/sbin"} {
			paths = append(paths, path.Join(dir, name))
		}
	}
	return f.find(paths...)
}

// shells are /bin/sh, /bin/bash, those of /etc/shells and root's own.
func (f finder) shells() []string {
	shells := []string{"/bin/sh", "/bin/bash"}
	data, _ := read(f.root, "etc/shells") // without the file, only the two
	for l := range strings.Lines(string(data)) {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "/") && !strings.HasSuffix(l, "/nologin") {
			shells = append(shells, l)
		}
	}
	data, _ = read(f.root, "etc/passwd")
	for l := range strings.Lines(string(data)) {
		if fields := strings.Split(strings.TrimSpace(l), ":"); len(fields) == 7 && fields[2] == "0" && strings.HasPrefix(fields[6], "/") {
			shells = append(shells, fields[6])
		}
	}
	return shells
}

// libraries are the C library and the loader's companions: nothing dynamic starts without them.
func (f finder) libraries() []string {
	var paths []string
	for _, dir := range [...]string{"lib", "lib64", "usr/lib", "usr/lib64"} {
		for _, pattern := range [...]string{"libc.so.6", "*-linux-gnu*/libc.so.6", "ld-linux*.so.*", "*-linux-gnu*/ld-linux*.so.*"} {
			matches, _ := fs.Glob(f.root, path.Join(dir, pattern)) // the patterns are well-formed
			for _, m := range matches {
				paths = append(paths, "/"+m)
			}
		}
	}
	return f.find(paths...)
}
