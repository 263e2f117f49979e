// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler/control"
)

func newStatusCmd() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what this host enforces, and what keeps it from more",
		Long: "Asks the agent for its report: the one state, the conditions, the releases, and for each subject the ruleset\n" +
			"that is declared and the one that was last read back from the kernel. With -o json also what is known of the\n" +
			"machine: its kernel, which of the BPF features that the backend rests on it has, its labels.",
		Example: "  muster status\n  muster status -o json | jq -r .report.state",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := f.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			return f.out.write(cmd.OutOrStdout(), status, func(w io.Writer) { printStatus(w, status) })
		},
	}
	f.register(cmd)
	return cmd
}

func printStatus(w io.Writer, s *control.Status) {
	r := s.Report
	rows := [][]string{
		{"state", string(r.State)},
		{"host", r.Host + " of fleet " + r.Fleet},
		{"mode", string(r.Mode) + ", backend " + r.Backend},
		{"kernel", r.Kernel + ", LSMs " + strings.Join(r.LSMs, ",")},
		{"agent", s.Version},
	}
	for _, release := range r.Releases {
		rows = append(rows, []string{"release", fmt.Sprintf("%s%d (epoch %d) %s, level %s, signed by %s",
			ofTenant(release.Tenant), release.Sequence, release.Epoch, shortDigest(release.Digest), release.Level, strings.Join(release.Signers, ", "))})
	}
	for _, subject := range r.Subjects {
		match := "as declared"
		if subject.Declared != subject.Observed {
			match = "declared " + shortDigest(subject.Declared) + ", kernel " + shortDigest(subject.Observed)
		}
		if subject.Held != "" {
			match = "held in audit: " + subject.Held
		}
		rows = append(rows, []string{"subject", fmt.Sprintf("%s: %d rules, %s", subject.Subject, subject.Rules, match)})
	}
	rows = append(rows, [][]string{
		{"drift", fmt.Sprintf("%d open, %d repaired (muster drift)", len(r.Drift), len(s.Repairs))},
		{"gaps", fmt.Sprint(len(r.Gaps))},
		{"events", countEvents(r)},
		{"last look", when(s.LastPoll) + ", the next " + when(s.NextPoll)},
	}...)
	table(w, rows)
	for _, c := range r.Conditions {
		fmt.Fprintf(w, "\n%s%s", ofTenant(c.Tenant), c.Type)
		if !c.Since.IsZero() {
			fmt.Fprintf(w, " since %s", when(c.Since))
		}
		if c.Error != "" {
			fmt.Fprintf(w, " (%s)", printable(c.Error))
		}
		for line := range strings.SplitSeq(c.Message, "\n") {
			fmt.Fprintf(w, "\n  %s", printable(line))
		}
	}
	if len(r.Conditions) > 0 {
		fmt.Fprintln(w)
	}
}

// ofTenant begins a line about a tenant that is not the host's own.
func ofTenant(name string) string {
	if name == "" {
		return ""
	}
	return "tenant " + printable(name) + ": "
}

// countEvents sums the events, and says what was lost.
func countEvents(r *fleet.Report) string {
	counts := map[string]uint64{}
	for _, e := range r.Events {
		counts[e.Action] += e.Count
	}
	parts := []string{}
	for action, n := range counts {
		parts = append(parts, fmt.Sprintf("%s %d", action, n))
	}
	slices.Sort(parts)
	lost := []string{}
	for reason, n := range r.Losses {
		if n > 0 {
			lost = append(lost, fmt.Sprintf("%s %d", reason, n))
		}
	}
	slices.Sort(lost)
	text := strings.Join(parts, ", ")
	if text == "" {
		text = "none"
	}
	if len(lost) > 0 {
		text += "; lost: " + strings.Join(lost, ", ")
	}
	return text
}
