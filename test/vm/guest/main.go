// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Command guest is the whole user space that the lab adds to a Debian root: the initramfs's /init, then
// process 1, then the agent that runs commands for the host. One static program in three stages:
//
//	/init            (initramfs)  load modules, mount the root, enter it, execute itself as "system"
//	system           (process 1)  mount the kernel's file systems, start "agent", reap orphans; or become systemd
//	agent            (a child)    serve wire requests on the virtio-serial port until the host goes away
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	stage := "initramfs"
	if len(os.Args) > 1 {
		stage = os.Args[1]
	}
	stages := map[string]func() error{"initramfs": initramfs, "system": system, "agent": agent}
	run, ok := stages[stage]
	if !ok {
		fmt.Fprintf(os.Stderr, "guest: unknown stage %q\n", stage)
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "guest: %s: %v\n", stage, err)
		if os.Getpid() == 1 {
			halt()
		}
		os.Exit(1)
	}
}

// halt ends the machine: with -no-reboot a restart ends the emulator.
func halt() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
