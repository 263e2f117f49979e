// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Command lab fetches the lab's kernels and root, and runs commands or a shell in one of its machines.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/test/vm"
)

// exitError carries a guest command's exit code to main.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	root := &cobra.Command{Use: "lab", Short: "Throw-away machines with real kernels", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(newFetch(), newRun(), newShell())
	err := root.ExecuteContext(ctx)
	var code exitError
	switch {
	case errors.As(err, &code):
		os.Exit(int(code))
	case err != nil:
		fmt.Fprintf(os.Stderr, "lab: error: %v\n", err)
		os.Exit(1)
	}
}

func newFetch() *cobra.Command {
	var kernels []string
	cmd := &cobra.Command{
		Use: "fetch", Short: "Download the kernels and build the root image", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return vm.Fetch(cmd.Context(), kernels, os.Stderr)
		},
	}
	cmd.Flags().StringSliceVar(&kernels, "kernel", vm.Kernels(), "kernel lines")
	return cmd
}

// machineFlags are the flags that describe a machine.
func machineFlags(cmd *cobra.Command, o *vm.Options) {
	o.Progress = os.Stderr
	cmd.Flags().StringVar(&o.Kernel, "kernel", "6.12", "kernel line")
	cmd.Flags().StringVar((*string)(&o.LSM), "lsm", string(vm.BPF), "security modules, behind landlock,lockdown,yama,integrity")
	cmd.Flags().IntVar(&o.Memory, "memory", 0, "MiB (default 1536)")
	cmd.Flags().BoolVar(&o.Network, "network", false, "give the guest a network card")
	cmd.Flags().StringVar(&o.Share, "share", "", "a directory that the guest has as /share, live")
	cmd.Flags().BoolVar(&o.ICount, "icount", false, "count instructions")
}

func newShell() *cobra.Command {
	var o vm.Options
	var files []string
	cmd := &cobra.Command{
		Use: "shell", Short: "A root shell inside (leave with exit, or ctrl-a x)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Files, err = fileFlags(files); err != nil {
				return err
			}
			return vm.Shell(cmd.Context(), o)
		},
	}
	machineFlags(cmd, &o)
	cmd.Flags().StringSliceVar(&files, "file", nil, fileUsage)
	return cmd
}

func newRun() *cobra.Command {
	var o vm.Options
	var files []string
	var verbose bool
	cmd := &cobra.Command{
		Use: "run [flags] -- COMMAND [ARG...]", Short: "Run one command inside and return its exit code",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if verbose {
				o.Console = os.Stderr
			}
			var err error
			if o.Files, err = fileFlags(files); err != nil {
				return err
			}
			return run(cmd.Context(), o, args)
		},
	}
	machineFlags(cmd, &o)
	cmd.Flags().StringSliceVar(&files, "file", nil, fileUsage)
	cmd.Flags().BoolVar(&verbose, "console", false, "show the serial console")
	return cmd
}

const fileUsage = "copy into the guest: FROM:TO"

func fileFlags(files []string) (map[string]string, error) {
	put := map[string]string{}
	for _, f := range files {
		from, to, ok := strings.Cut(f, ":")
		if !ok {
			return nil, fmt.Errorf("--file %s: want FROM:TO", f)
		}
		put[from] = to
	}
	return put, nil
}

func run(ctx context.Context, o vm.Options, args []string) error {
	m, err := vm.Boot(ctx, o)
	if err != nil {
		return err
	}
	defer m.Close()
	result, err := m.Run(ctx, vm.Command{Args: args, Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		return err
	}
	if result.Code != 0 {
		return exitError(result.Code)
	}
	return nil
}
