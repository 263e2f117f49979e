// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrKernel means a kernel line that the lab does not know.
var ErrKernel = errors.New("unknown kernel line")

// line is where one kernel line comes from.
type line struct {
	name, codename string
	backports      bool
	// image is a pattern of the package's name. Newer images are split: parts are the words that stand for "image" in
	// the names of the packages to take instead.
	image string
	parts []string
}

// The kernel lines, oldest first. All have BTF, BPF-LSM, AppArmor and SELinux built in.
var lines = []line{
	{name: "5.10", codename: "bullseye", image: `linux-image-5\.10\.0-\d+-cloud-amd64`},
	{name: "6.1", codename: "bookworm", image: `linux-image-6\.1\.0-\d+-cloud-amd64`},
	{name: "6.12", codename: "bookworm", image: `linux-image-6\.12\.\d+\+deb12-cloud-amd64`},
	{
		name: "7", codename: "trixie", backports: true, image: `linux-image-7\.\d+(\.\d+)?\+deb13-cloud-amd64`,
		parts: []string{"binary", "modules", "base"},
	},
}

// defaultKernels are the lines that tests run on unless KERNEL says otherwise.
var defaultKernels = []string{"6.1", "6.12"}

// Kernels returns the kernel lines to test on: the words of the environment variable KERNEL, or 6.1 and 6.12.
func Kernels() []string {
	if names := strings.FieldsFunc(os.Getenv("KERNEL"), func(r rune) bool { return r == ' ' || r == ',' }); len(names) > 0 {
		return names
	}
	return slices.Clone(defaultKernels)
}

func findLine(name string) (line, error) {
	var known []string
	for _, l := range lines {
		if l.name == name {
			return l, nil
		}
		known = append(known, l.name)
	}
	return line{}, fmt.Errorf("%w %q: the lab knows %s", ErrKernel, name, strings.Join(known, ", "))
}

// kernel is one fetched kernel.
type kernel struct {
	dir     string
	Release string
}

func (k kernel) image() string      { return filepath.Join(k.dir, "vmlinuz") }
func (k kernel) modules() string    { return filepath.Join(k.dir, "modules.ext4") }
func (k kernel) earlyDir() string   { return filepath.Join(k.dir, "early") }
func (k kernel) String() string     { return k.Release }
func releaseFile(dir string) string { return filepath.Join(dir, "release") }

// fetchKernel returns the kernel of a line, downloading it first if the cache has none.
func fetchKernel(ctx context.Context, name string, progress io.Writer) (kernel, error) {
	l, err := findLine(name)
	if err != nil {
		return kernel{}, err
	}
	dir, err := build(ctx, "kernel-"+name, func(dir string) error { return l.build(ctx, dir, progress) })
	if err != nil {
		return kernel{}, err
	}
	release, err := os.ReadFile(releaseFile(dir))
	if err != nil {
		return kernel{}, err
	}
	return kernel{dir: dir, Release: string(release)}, nil
}

// build lays out dir: vmlinuz, release, modules.ext4 (the whole module tree) and early/ (what the initramfs inserts).
func (l line) build(ctx context.Context, dir string, progress io.Writer) error {
	work := filepath.Join(dir, "work")
	a, err := newApt(ctx, filepath.Join(work, "apt"), l.codename, l.backports, progress)
	if err != nil {
		return err
	}
	image, err := a.newest(ctx, l.image)
	if err != nil {
		return err
	}
	packages := []string{image}
	if len(l.parts) > 0 {
		packages = nil
	}
	for _, part := range l.parts {
		packages = append(packages, strings.Replace(image, "-image-", "-"+part+"-", 1))
	}
	tree := filepath.Join(work, "tree")
	if err := a.unpack(ctx, tree, packages...); err != nil {
		return err
	}
	release := strings.TrimPrefix(image, "linux-image-")
	modules, err := moduleTree(tree)
	if err != nil {
		return err
	}
	vmlinuz := filepath.Join(tree, "boot", "vmlinuz-"+release)
	if merged := filepath.Join(modules, release, "vmlinuz"); !exists(vmlinuz) && exists(merged) {
		vmlinuz = merged
	}
	if err := os.Rename(vmlinuz, filepath.Join(dir, "vmlinuz")); err != nil {
		return err
	}
	if _, err := output(ctx, "depmod", "-b", filepath.Dir(filepath.Dir(modules)), release); err != nil {
		return err
	}
	if err := extractEarly(ctx, filepath.Join(modules, release), filepath.Join(dir, "early")); err != nil {
		return err
	}
	if err := makeImage(ctx, modules, filepath.Join(dir, "modules.ext4")); err != nil {
		return err
	}
	if err := os.WriteFile(releaseFile(dir), []byte(release), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(progress, "lab: kernel %s ready\n", release)
	return os.RemoveAll(work)
}

// moduleTree finds …/lib/modules in an unpacked package, which newer packages keep below /usr. depmod wants it at
// /lib, so it is moved there.
func moduleTree(tree string) (string, error) {
	old, merged := filepath.Join(tree, "lib", "modules"), filepath.Join(tree, "usr", "lib", "modules")
	if !exists(merged) {
		return old, nil
	}
	if err := os.MkdirAll(filepath.Dir(old), 0o755); err != nil {
		return "", err
	}
	return old, os.Rename(merged, old)
}

// earlyModules are what it takes to reach the root's disk and the agent's port. Some are built in, depending on the
// kernel.
var earlyModules = []string{"virtio_pci", "virtio_blk", "virtio_console"}

// extractEarly writes the early modules and what they depend on into dir, uncompressed, named in the order of loading.
func extractEarly(ctx context.Context, modules, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	deps, err := os.ReadFile(filepath.Join(modules, "modules.dep"))
	if err != nil {
		return err
	}
	for i, path := range loadOrder(string(deps), earlyModules) {
		name, _, _ := strings.Cut(filepath.Base(path), ".")
		content, err := moduleContent(ctx, filepath.Join(modules, path))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d-%s.ko", i, name)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func moduleContent(ctx context.Context, path string) ([]byte, error) {
	if strings.HasSuffix(path, ".xz") {
		out, err := output(ctx, "xz", "-dc", path)
		return []byte(out), err
	}
	return os.ReadFile(path)
}

// loadOrder returns the files of the named modules, each after what it depends on. modules.dep lists all
// dependencies of a module, the last to be loaded first.
func loadOrder(deps string, names []string) []string {
	var order []string
	for _, name := range names {
		for entry := range strings.Lines(deps) {
			file, needs, _ := strings.Cut(strings.TrimSpace(entry), ":")
			base, _, _ := strings.Cut(filepath.Base(file), ".")
			if strings.ReplaceAll(base, "-", "_") != name {
				continue
			}
			chain := append([]string{file}, strings.Fields(needs)...)
			slices.Reverse(chain)
			for _, f := range chain {
				if !slices.Contains(order, f) {
					order = append(order, f)
				}
			}
		}
	}
	return order
}
