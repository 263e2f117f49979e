// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rootPackages are what the guest has beyond Debian's essential packages.
var rootPackages = []string{
	"bash", "bpftool", "ca-certificates", "coreutils", "git", "iproute2", "kmod", "libcap2-bin", "openssh-client",
	"openssh-server", "procps", "systemd", "util-linux",
}

// rootScript runs in the new root: the users that scenarios name, and nothing that needs the outside.
const rootScript = `
useradd -u 1001 -m -s /bin/bash user1
passwd -d root
rm -f /etc/hostname /var/cache/apt/archives/*.deb /var/lib/apt/lists/*_* /etc/ssh/ssh_host_*
rm -rf /usr/share/doc/* /usr/share/man/* /usr/share/locale/*
printf '127.0.0.1 localhost lab\n::1 localhost\n' >/etc/hosts
: >/etc/machine-id
`

// rootName changes with the recipe, so that a cache made by another one is not used.
func rootName() string {
	recipe := sha256.Sum256([]byte(strings.Join(rootPackages, " ") + rootScript))
	return fmt.Sprintf("root-%x", recipe[:4])
}

// fetchRoot returns the Debian root image, building it first if the cache has none.
func fetchRoot(ctx context.Context, progress io.Writer) (string, error) {
	dir, err := build(ctx, rootName(), func(dir string) error { return buildRoot(ctx, dir, progress) })
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "root.ext4"), nil
}

func buildRoot(ctx context.Context, dir string, progress io.Writer) error {
	m, err := findMirrors(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "lab: building the Debian root (one to two minutes, once)\n")
	settings, err := acquireSettings(ctx, dir)
	if err != nil {
		return err
	}
	tree := filepath.Join(dir, "tree")
	args := []string{
		"--variant=minbase", "--mode=root", "--quiet", "--aptopt=" + settings,
		"--aptopt=Acquire::Languages \"none\"", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--include=" + strings.Join(rootPackages, ","), "--customize-hook=chroot \"$1\" sh -ec '" + quote(rootScript) + "'",
		"bookworm", tree, "-",
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Stdin = strings.NewReader(m.sources("bookworm", false))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap: %w: %s", err, tail(string(out), 1500))
	}
	if err := makeImage(ctx, tree, filepath.Join(dir, "root.ext4")); err != nil {
		return err
	}
	fmt.Fprintf(progress, "lab: Debian root ready\n")
	return os.RemoveAll(tree)
}

func quote(script string) string { return strings.ReplaceAll(script, "'", `'\''`) }

// acquireSettings writes down how the machine's apt reaches its mirrors (proxies, validity checks), for mmdebstrap.
func acquireSettings(ctx context.Context, dir string) (string, error) {
	out, err := output(ctx, "apt-config", "dump", "Acquire")
	if err != nil {
		return "", err
	}
	var keep strings.Builder
	for l := range strings.Lines(out) {
		for _, prefix := range []string{"Acquire::http", "Acquire::https", "Acquire::Check-"} {
			if strings.HasPrefix(l, prefix) {
				keep.WriteString(l)
			}
		}
	}
	path := filepath.Join(dir, "apt.conf")
	return path, os.WriteFile(path, []byte(keep.String()), 0o644)
}

// makeImage writes an ext4 image that holds the tree, with room to spare: the lab never writes to it, a machine's
// changes live in a snapshot that dies with it.
func makeImage(ctx context.Context, tree, image string) error {
	var size int64
	err := filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		size += info.Size() + 4096
		return nil
	})
	if err != nil {
		return err
	}
	megabytes := size>>20 + size>>22 + 1024
	_, err = output(ctx, "mke2fs", "-q", "-t", "ext4", "-d", tree, "-E", "root_owner=0:0,lazy_itable_init=1",
		"-O", "^has_journal", "-m", "0", image, fmt.Sprintf("%dM", megabytes))
	return err
}
