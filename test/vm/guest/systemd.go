// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// unitDir is where systemd takes units from that no package owns and no reboot keeps.
const unitDir = "/run/systemd/system"

// handOver makes Debian's systemd process 1, with the lab's agent as a unit that waits for nothing. systemd finds Options.Files
// in their places, so that units among them take part in the boot.
func handOver() error {
	if err := takeFiles(); err != nil {
		return err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	wants := filepath.Join(unitDir, "sysinit.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	for path, text := range map[string]string{
		// An empty machine-id would make this a first boot.
		"/etc/machine-id": hex.EncodeToString(id) + "\n",
		"/etc/hostname":   "lab\n",
		filepath.Join(unitDir, "lab-agent.service"): agentUnit(),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Symlink("../lab-agent.service", filepath.Join(wants, "lab-agent.service")); err != nil {
		return err
	}
	return unix.Exec("/usr/lib/systemd/systemd", []string{"/sbin/init"}, environment())
}

func agentUnit() string {
	var b strings.Builder
	b.WriteString("[Unit]\nDescription=The lab's agent\nDefaultDependencies=no\n[Service]\n")
	fmt.Fprintf(&b, "ExecStart=%s agent\nWorkingDirectory=/root\n", self)
	for _, v := range environment() {
		fmt.Fprintf(&b, "Environment=%s\n", v)
	}
	b.WriteString("LimitNOFILE=65536\nTasksMax=infinity\n")
	return b.String()
}
