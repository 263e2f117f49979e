// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/inventory/host"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/reconciler"
	"github.com/muster-fleet/muster/reconciler/config"
	"github.com/muster-fleet/muster/reconciler/control"
)

// agentFlags are shared by the verbs that ask the agent on this host.
type agentFlags struct {
	socket string
	out    outputFlag
}

func (f *agentFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.socket, "socket", config.DefaultSocket, "control socket of the agent")
	_ = cmd.MarkFlagFilename("socket")
	f.out.register(cmd)
}

func (f *agentFlags) client() *control.Client { return control.NewClient(f.socket) }

// thisHost is the machine that the command runs on, for the offline verbs.
type thisHost struct{ root fs.FS }

// Resolve follows symlinks.
func (h thisHost) Resolve(paths []string) map[string]string { return host.Resolve(h.root, paths) }

// Protect is what every host needs to stay manageable.
func (h thisHost) Protect() []enforce.ProtectPair {
	return enforce.DefaultProtect(host.Programs(h.root), enforce.AgentPaths{})
}

// offline asks the agent for its facts; without an agent the machine's own have to do, and a note says so.
func (f *agentFlags) offline(cmd *cobra.Command) (*reconciler.Offline, error) {
	out := &reconciler.Offline{Host: thisHost{os.DirFS("/")}}
	facts, err := f.client().Rulesets(cmd.Context())
	if err == nil {
		out.Facts = facts
		return out, nil
	}
	if !errors.Is(err, control.ErrUnreachable) {
		return nil, err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "muster: note: no agent answers; compared with an empty kernel, and with what the backend bpflsm can do\n")
	node, err := host.Gather(os.DirFS("/"), host.Options{LabelsFile: host.LabelsFile})
	if err != nil {
		return nil, err
	}
	out.Facts = reconciler.Assumed(node)
	return out, nil
}

// table prints rows in columns.
func table(w io.Writer, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, printable(cell))
		}
		fmt.Fprintln(tw)
	}
	_ = tw.Flush()
}

// printable keeps what comes from policies and paths from steering a terminal.
func printable(s string) string {
	out := []rune{}
	for _, r := range s {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			r = '\uFFFD'
		}
		out = append(out, r)
	}
	return string(out)
}

// printableText is printable for a text of several lines: line ends stay, tabs become spaces.
func printableText(s string) string {
	lines := strings.Split(strings.ReplaceAll(s, "\t", "    "), "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return strings.Join(lines, "\n")
}

func policyID(id *policies.ID) string {
	if id == nil {
		return ""
	}
	return reconciler.PolicyName(*id)
}

func shortDigest(digest string) string {
	if len(digest) > 19 {
		return digest[:19]
	}
	return digest
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}
