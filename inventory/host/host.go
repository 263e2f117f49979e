// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package host feeds inventory with what is known of the node itself: kernel, operating system, labels, and
// the programs by which it stays manageable.
//
// It reads everything through one fs.FS that stands for the root directory, so that a test, an image or a
// container's root does as well as the running host. What only a driver can find out, such as the BPF
// features of the kernel, is given by the caller. It starts nothing and writes nothing.
package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"runtime"
	"strings"

	"github.com/muster-fleet/muster/inventory"
)

// The labels that a node has without anybody writing them.
const (
	LabelHostname          = "kubernetes.io/hostname"
	LabelOS                = "kubernetes.io/os"
	LabelArch              = "kubernetes.io/arch"
	LabelKubeArmorHostname = "kubearmor.io/hostname"
)

// LabelsFile is where an administrator writes the node's labels, below the root, unless another file is configured.
const LabelsFile = "etc/muster/labels.yaml"

// maxBytes bounds each file that is read, the labels file among them.
const maxBytes = 64 << 10

// Options are what Gather cannot read from the root.
type Options struct {
	// BPF are probed features of the kernel.
	BPF map[string]bool
	// LabelsFile is the file with the node's labels, below the root; they win over the well-known ones. No other file
	// counts, and none when it is empty. The constant LabelsFile need not exist, another one must.
	LabelsFile string
	// Arch is the machine's architecture in Go's spelling; empty means that of this program.
	Arch string
}

// Gather reads the node's facts below root. A missing file leaves its fact empty; a labels file that
// cannot be understood is an error, because policies select by it.
func Gather(root fs.FS, opts Options) (inventory.Node, error) {
	node := inventory.Node{
		Hostname:  line(root, "proc/sys/kernel/hostname"),
		MachineID: line(root, "etc/machine-id"),
		OS:        osName(root),
		Kernel:    line(root, "proc/sys/kernel/osrelease"),
		LSMs:      lsms(root),
		BTF:       exists(root, "sys/kernel/btf/vmlinux"),
		CgroupV2:  exists(root, "sys/fs/cgroup/cgroup.controllers"),
		BPF:       maps.Clone(opts.BPF),
	}
	written, err := readLabels(root, opts.LabelsFile)
	if err != nil {
		return inventory.Node{}, err
	}
	node.Labels = wellKnown(node.Hostname, opts.Arch)
	maps.Copy(node.Labels, written)
	return node, nil
}

func wellKnown(hostname, arch string) map[string]string {
	if arch == "" {
		arch = runtime.GOARCH
	}
	labels := map[string]string{LabelOS: "linux", LabelArch: arch}
	if hostname != "" {
		labels[LabelHostname], labels[LabelKubeArmorHostname] = hostname, hostname
	}
	return labels
}

func readLabels(root fs.FS, path string) (map[string]string, error) {
	if path == "" {
		return nil, nil
	}
	data, err := read(root, path)
	switch {
	case path == LabelsFile && errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read labels: %w", err)
	}
	return ParseLabels("/"+path, data)
}

// osName is PRETTY_NAME of os-release.
func osName(root fs.FS) string {
	for _, path := range []string{"etc/os-release", "usr/lib/os-release"} {
		data, err := read(root, path)
		if err != nil {
			continue
		}
		for l := range strings.Lines(string(data)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(l), "PRETTY_NAME="); ok {
				return strings.Trim(value, `"'`)
			}
		}
	}
	return ""
}

func lsms(root fs.FS) []string {
	list := line(root, "sys/kernel/security/lsm")
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// line is a file's first line without its end; empty when it cannot be read.
func line(root fs.FS, path string) string {
	data, err := read(root, path)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(first)
}

func exists(root fs.FS, path string) bool {
	_, err := fs.Stat(root, path)
	return err == nil
}

// read reads at most maxBytes, and one more so that the reader sees that there are more.
func read(root fs.FS, path string) ([]byte, error) {
	f, err := root.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBytes+1))
}
