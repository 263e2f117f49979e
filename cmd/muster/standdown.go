// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
)

func newStandDownCmd() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "stand-down FILE",
		Short: "Lift this host's self-protection for the window of a signed statement",
		Long: "For an upgrade of the package, a change of the configuration, or to remove Muster. Where protectSelf is true,\n" +
			"nobody but the agent may change what is its own, root neither. The agent checks the statement against the trust\n" +
			"that it holds: enough signers, this host, now, and not used before. It logs and reports the window, and protects\n" +
			"itself again when it is over.",
		Example: "  muster stand-down upgrade.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			if _, err := bundles.ReadStandDown(file); err != nil {
				return err
			}
			s, err := f.client().StandDown(cmd.Context(), file)
			if err != nil {
				return err
			}
			return f.out.write(cmd.OutOrStdout(), s, func(w io.Writer) {
				fmt.Fprintf(w, "stood down until %s, signed by %s: %s\n", when(s.Until), strings.Join(s.Signers, ", "), printable(s.Reason))
			})
		},
	}
	f.register(cmd)
	cmd.AddCommand(newStandDownSignCmd())
	return cmd
}

// signedStandDown is what stand-down sign answers.
type signedStandDown struct {
	File      string             `json:"file"`
	Statement *bundles.StandDown `json:"statement"`
	Signers   []string           `json:"signers"`
	Needed    int                `json:"needed"`
}

// standDownSigning is what stand-down sign is told.
type standDownSigning struct {
	keys                      keyFlags
	out                       outputFlag
	trust, host, reason, from string
	lasting                   time.Duration
	yes                       bool
}

func newStandDownSignCmd() *cobra.Command {
	var f standDownSigning
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "Make a stand-down and sign it, or add a signature to one",
		Long: "A file that is not there is made, with --host and --reason; one that is there is shown, and signed as it is when\n" +
			"you say yes. It needs as many signers as a new trust file (threshold.trust), or, where the trust file names none, as a release\n" +
			"that is enforced. Each host accepts it once.",
		Example: "  muster stand-down sign upgrade.json --host web-1 --reason 'muster 1.4' --for 2h\n" +
			"  muster stand-down sign upgrade.json   # another signer",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.keys.register(cmd)
	f.out.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.trust, "trust", "trust.yaml", "the fleet's trust file")
	flags.StringVar(&f.host, "host", "", "the host's name in the fleet, or '*' for every host")
	flags.StringVar(&f.reason, "reason", "", "why, for the host's log and the fleet's report")
	flags.StringVar(&f.from, "from", "", "when the window begins (default now)")
	flags.BoolVar(&f.yes, "yes", false, "sign without asking what somebody else made")
	flags.DurationVar(&f.lasting, "for", 2*time.Hour, "how long it lasts, at most 168h")
	return cmd
}

func (f *standDownSigning) run(cmd *cobra.Command, file string) error {
	text, err := os.ReadFile(f.trust)
	if err != nil {
		return err
	}
	t, err := bundles.LoadTrust(text)
	if err != nil {
		return err
	}
	s, found, err := openStandDown(cmd, file, func() (*bundles.SignedStandDown, error) {
		begin, err := windowBegins(f.from)
		if err != nil {
			return nil, err
		}
		return bundles.NewStandDown(t, f.host, begin, f.lasting, f.reason)
	})
	if err != nil {
		return err
	}
	shown := cmd.OutOrStdout()
	if f.out.value == "json" {
		shown = cmd.ErrOrStderr()
	}
	made, err := showStandDown(shown, file, s, t)
	if err != nil {
		return err
	}
	if found && !f.yes {
		if err := askYes(cmd); err != nil {
			return err
		}
	}
	if err := made.sign(cmd, &f.keys, s, t); err != nil {
		return err
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := bundles.WriteAtomic(file, append(data, '\n'), 0o644); err != nil {
		return err
	}
	return f.out.write(cmd.OutOrStdout(), made, func(w io.Writer) { made.print(w) })
}

// windowBegins is now unless something else is said.
func windowBegins(from string) (time.Time, error) {
	if from == "" {
		return time.Now(), nil
	}
	begin, err := time.Parse(time.RFC3339, from)
	if err != nil {
		return begin, hinted("write it like 2026-03-01T22:00:00Z", "--from: %w", err)
	}
	return begin, nil
}

// openStandDown reads the file, or makes a statement when there is none; found says which.
func openStandDown(cmd *cobra.Command, path string, fresh func() (*bundles.SignedStandDown, error)) (s *bundles.SignedStandDown, found bool, err error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, needed := range []string{"host", "reason"} {
			if !cmd.Flags().Changed(needed) {
				return nil, false, hinted("muster stand-down sign FILE --host HOST --reason TEXT makes a new one", "%s does not exist, and a new stand-down needs --%s", path, needed)
			}
		}
		s, err = fresh()
		return s, false, err
	case err != nil:
		return nil, false, err
	}
	for _, ours := range []string{"host", "reason", "from", "for"} {
		if cmd.Flags().Changed(ours) {
			return nil, false, hinted("leave the flag out to sign it as it is, or name another file", "%s exists, and --%s would change what its signers signed", path, ours)
		}
	}
	s, err = bundles.ReadStandDown(data)
	return s, true, err
}

// showStandDown shows what is to be signed.
func showStandDown(w io.Writer, file string, s *bundles.SignedStandDown, t *bundles.Trust) (*signedStandDown, error) {
	d, err := s.Claim()
	if err != nil {
		return nil, err
	}
	signers, _ := s.Signers(t)
	fmt.Fprintf(w, "%s\n  fleet   %s, channel %s\n  host    %s\n  window  %s to %s\n  reason  %s\n",
		file, printable(d.Fleet), printable(d.Channel), printable(d.Host), when(d.NotBefore), when(d.NotAfter), printable(d.Reason))
	return &signedStandDown{File: file, Statement: d, Signers: signers, Needed: t.StandDownThreshold()}, nil
}

func (s *signedStandDown) sign(cmd *cobra.Command, f *keyFlags, signed *bundles.SignedStandDown, t *bundles.Trust) error {
	keys, err := f.load(cmd, "MUSTER_KEY", t.Signers)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return hinted("--key FILE, or the key in your keys directory", "no key to sign with")
	}
	for _, k := range keys {
		if err := signed.Sign(cmd.Context(), t, k); err != nil {
			return err
		}
	}
	s.Signers, _ = signed.Signers(t)
	return nil
}

func (s *signedStandDown) print(w io.Writer) {
	fmt.Fprintf(w, "  signed  %d of %d needed: %s\n", len(s.Signers), s.Needed, strings.Join(s.Signers, ", "))
	if len(s.Signers) < s.Needed {
		fmt.Fprintf(w, "another signer runs: muster stand-down sign %s\n", s.File)
	} else {
		fmt.Fprintf(w, "on the host: muster stand-down %s\n", s.File)
	}
}
