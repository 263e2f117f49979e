// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package inventory is what there is to protect: the node and, later, its namespaces, pods and containers,
// in go-memdb, with immutable snapshots and change notification.
//
// Feeders (inventory/host and, later, inventory/cri, inventory/kube) write; everybody else reads a Snapshot,
// which is one memdb transaction and therefore never a mixture of two moments.
package inventory

// Node is what is known of the host itself.
type Node struct {
	// Hostname is the kernel's node name; the label kubernetes.io/hostname carries it unless overridden.
	Hostname  string            `json:"hostname"`
	MachineID string            `json:"machineID,omitempty"`
	OS        string            `json:"os,omitempty"` // PRETTY_NAME of os-release
	Kernel    string            `json:"kernel"`
	LSMs      []string          `json:"lsms"` // /sys/kernel/security/lsm, in order
	BTF       bool              `json:"btf"`
	CgroupV2  bool              `json:"cgroupV2"`
	BPF       map[string]bool   `json:"bpf,omitempty"` // probed feature -> present
	Labels    map[string]string `json:"labels"`
}

// Programs are the files by which the host stays manageable, as the kernel sees them: symlinks resolved.
// What a host does not have is absent.
type Programs struct {
	Init []string `json:"init,omitempty"` // systemd and what it starts sessions with
	// Shells are login shells: /bin/sh, those of /etc/shells, root's own.
	Shells []string `json:"shells,omitempty"`
	// Consoles are the programs that put a login on a terminal: agetty.
	Consoles []string `json:"consoles,omitempty"`
	Logins   []string `json:"logins,omitempty"`   // login, and what it needs to check a password
	Elevate  []string `json:"elevate,omitempty"`  // su, sudo
	SSH      []string `json:"ssh,omitempty"`      // sshd and its parts
	Runtimes []string `json:"runtimes,omitempty"` // containerd, its shims, runc, dockerd, crio
	Kubelet  []string `json:"kubelet,omitempty"`
	// Files must be readable by all of these: libraries, accounts.
	Files []string `json:"files,omitempty"`
	// LoginFiles must be readable by Logins, Elevate and SSH: password hashes, their configuration.
	LoginFiles []string `json:"loginFiles,omitempty"`
	// Modules are the PAM modules without which PAM's configuration refuses a login.
	Modules []string `json:"modules,omitempty"`
	// SSHFiles must be readable by SSH: host keys, and what its configuration includes.
	SSHFiles []string `json:"sshFiles,omitempty"`
	// Ports are the TCP ports at which sshd is reached.
	Ports []string `json:"ports,omitempty"`
}
