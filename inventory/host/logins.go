// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"io/fs"
	"net"
	"path"
	"slices"
	"strings"
)

// maxIncluded bounds how many files a configuration may be spread over: one that includes itself has an end.
const maxIncluded = 64

// services are PAM's names of what lets people in.
var services = []string{"login", "sshd", "su", "su-l", "sudo", "sudo-i", "runuser", "other"}

// pam finds the modules that must succeed for somebody to log in, and the files that say so.
func (f finder) pam() (modules, files []string) {
	var named []string
	queue := slices.Clone(services)
	for i := 0; i < len(queue) && i < maxIncluded; i++ {
		file := path.Join("/etc/pam.d", queue[i])
		found := f.find(file)
		if len(found) == 0 {
			found = f.find(path.Join("/usr/lib/pam.d", queue[i]))
		}
		if len(found) == 0 {
			continue
		}
		files = append(files, found[0])
		includes, wanted := f.pamFile(found[0])
		named = append(named, wanted...)
		for _, name := range includes {
			if !slices.Contains(queue, name) {
				queue = append(queue, name)
			}
		}
	}
	return f.find(f.modulePaths(named)...), files
}

// pamFile is what one of PAM's files includes, and the modules that it names other than as optional.
func (f finder) pamFile(file string) (includes, modules []string) {
	data, _ := read(f.root, strings.TrimPrefix(file, "/")) // an unreadable file names nothing
	for l := range strings.Lines(string(data)) {
		l, _, _ = strings.Cut(l, "#")
		fields := strings.Fields(l)
		switch {
		case len(fields) == 2 && fields[0] == "@include":
			includes = append(includes, fields[1])
		case len(fields) < 3 || fields[1] == "optional" || strings.HasPrefix(fields[0], "-"):
		case fields[1] == "include" || fields[1] == "substack":
			includes = append(includes, fields[2])
		default:
			for _, field := range fields[2:] { // [value=action …] is one control of several fields
				if strings.HasSuffix(field, ".so") {
					modules = append(modules, field)
					break
				}
			}
		}
	}
	return includes, modules
}

// modulePaths are where PAM looks for the modules.
func (f finder) modulePaths(names []string) []string {
	var dirs, paths []string
	for _, pattern := range [...]string{"lib/security", "lib64/security", "usr/lib/security", "usr/lib64/security", "lib/*-linux-gnu*/security", "usr/lib/*-linux-gnu*/security"} {
		matches, _ := fs.Glob(f.root, pattern) // the patterns are well-formed
		dirs = append(dirs, matches...)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "/") {
			paths = append(paths, name)
			continue
		}
		for _, dir := range dirs {
			paths = append(paths, path.Join("/", dir, name))
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// sshdSettings is what sshd_config says about how sshd is reached.
type sshdSettings struct{ files, ports []string }

// sshd reads sshd_config and what it includes: its ports, its host keys, and the files themselves.
func (f finder) sshd() sshdSettings {
	queue, keys, ports := []string{"/etc/ssh/sshd_config"}, []string{}, []string{}
	for i := 0; i < len(queue) && i < maxIncluded; i++ {
		data, _ := read(f.root, strings.TrimPrefix(queue[i], "/")) // without the file sshd has its defaults
		for l := range strings.Lines(string(data)) {
			fields := strings.Fields(strings.Replace(l, "=", " ", 1))
			if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
				continue
			}
			value := strings.Trim(fields[1], `"`)
			switch strings.ToLower(fields[0]) {
			case "port":
				ports = append(ports, value)
			case "listenaddress":
				if _, port, err := net.SplitHostPort(value); err == nil {
					ports = append(ports, port)
				}
			case "hostkey":
				keys = append(keys, value)
			case "include":
				for _, pattern := range fields[1:] {
					queue = append(queue, f.included(strings.Trim(pattern, `"`))...)
				}
			}
		}
	}
	if len(keys) == 0 {
		keys = []string{"/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_ed25519_key"}
	}
	if len(ports) == 0 {
		ports = []string{"22"}
	}
	slices.Sort(ports)
	return sshdSettings{files: f.find(append(keys, queue[1:]...)...), ports: slices.Compact(ports)}
}

// included are the files that a pattern of sshd_config's Include means.
func (f finder) included(pattern string) []string {
	if !path.IsAbs(pattern) {
		pattern = path.Join("/etc/ssh", pattern)
	}
	matches, _ := fs.Glob(f.root, strings.TrimPrefix(pattern, "/")) // a malformed pattern includes nothing
	for i := range matches {
		matches[i] = "/" + matches[i]
	}
	return matches
}
