// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler"
)

type verifyFlags struct {
	trust, sha256, stateDir string
	from                    sourceFlags
	out                     outputFlag
}

func newVerifyCmd() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify DIR|FILE|GIT-URL|OCI-REFERENCE",
		Short: "Check a release as a host would, and print each check with its evidence",
		Long: "Exits with 0 when a host with this trust file would accept the release: its signatures, its files, its policies and\n" +
			"its list of hosts. With --state-dir the host's own marks are compared too, so that a rollback shows. Two refusals\n" +
			"depend on what a host enforces and holds: removal-not-acknowledged and, with tenants, name-taken.",
		Example: "  muster verify https://git.example.com/policy.git --trust trust.yaml\n  muster verify ./checkout --trust trust.yaml -o json\n" +
			"  muster verify oci://registry.example.com/acme/policy:stable --trust trust.yaml",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.trust, "trust", "/etc/muster/trust.yaml", "trust file")
	fl.StringVar(&f.sha256, "trust-sha256", "", "what the trust file's sha256 must be")
	fl.StringVar(&f.stateDir, "state-dir", "", "a host's state directory, for its marks")
	_ = cmd.MarkFlagFilename("trust", "yaml")
	_ = cmd.MarkFlagDirname("state-dir")
	f.from.register(cmd)
	f.out.register(cmd)
	return cmd
}

// verifyResult is the JSON of muster verify.
type verifyResult struct {
	Accepted   bool                `json:"accepted"`
	Refusal    string              `json:"refusal,omitempty"`
	Error      string              `json:"error,omitempty"`
	Level      bundles.Level       `json:"level,omitempty"`
	Digest     string              `json:"digest,omitempty"`
	Sequence   int64               `json:"sequence,omitempty"`
	Epoch      int64               `json:"epoch,omitempty"`
	Revision   bundles.Revision    `json:"revision,omitempty"`
	Signers    []string            `json:"signers,omitempty"`
	Checks     []bundles.Check     `json:"checks"`
	Conditions []bundles.Condition `json:"conditions,omitempty"`
}

func (f *verifyFlags) run(cmd *cobra.Command, target string) error {
	trust, _, err := readTrust(f.trust, f.sha256)
	if err != nil {
		return err
	}
	var seen bundles.Seen
	if f.stateDir != "" {
		if seen, err = bundles.NewStateFile(f.stateDir).Load(); err != nil && !errors.Is(err, bundles.ErrMissingState) {
			return err
		}
	}
	raw, err := f.from.fetch(cmd.Context(), target, trust.Channel)
	if err != nil {
		return err
	}
	v, checks, refusal := bundles.Inspect(raw, trust, seen, time.Now())
	if refusal == nil {
		var read bundles.Check
		read, refusal = readAsHost(v, trust)
		checks = append(checks, read)
	}
	res := verifyResult{Accepted: refusal == nil, Refusal: reconciler.RefusalName(refusal), Checks: checks, Revision: raw.Revision}
	if refusal != nil {
		res.Error = refusal.Error()
	} else {
		res.Level, res.Digest, res.Signers, res.Conditions = v.Level(), v.Digest(), v.Signers(), v.Conditions()
		res.Sequence, res.Epoch = v.Release().Sequence, v.Release().Epoch
	}
	if err := f.out.write(cmd.OutOrStdout(), res, func(w io.Writer) { printVerify(w, res) }); err != nil {
		return err
	}
	return refusal
}

// readAsHost reads the policies and the list of hosts, as the last of the checks.
func readAsHost(v *bundles.Verified, trust *bundles.Trust) (bundles.Check, error) {
	check := bundles.Check{Name: "policies and hosts"}
	content, err := reconciler.Read(v, nil, !trust.Scoped())
	if err != nil {
		check.Evidence = err.Error()
		return check, err
	}
	rules := 0
	for _, p := range content.Policies.Policies() {
		rules += len(p.Rules)
	}
	hosts := "the release does not say who may report"
	switch {
	case trust.Scoped():
		hosts = "a release with a scope does not say who may report"
	case content.Hosts != nil:
		hosts = fmt.Sprintf("%s lists %d keys that may report", fleet.EnrolledFile, content.Hosts.Len())
	}
	check.OK, check.Evidence = true, fmt.Sprintf("%d policies, %d rules; %s", len(content.Policies.Policies()), rules, hosts)
	return check, nil
}

func printVerify(w io.Writer, res verifyResult) {
	for _, c := range res.Checks {
		state := "ok  "
		if !c.OK {
			state = "FAIL"
		}
		fmt.Fprintf(w, "%s  %-18s  %s\n", state, c.Name, printable(strings.ReplaceAll(c.Evidence, "\n", "; ")))
	}
	for _, c := range res.Conditions {
		fmt.Fprintf(w, "note  %-18s  %s\n", c.Type, printable(c.Message))
	}
	if res.Accepted {
		fmt.Fprintf(w, "accepted at level %s: release %d, %s\n", res.Level, res.Sequence, res.Digest)
	} else {
		fmt.Fprintf(w, "refused: %s\n", res.Refusal)
	}
}

// readTrust reads a trust file and, when a digest is given, insists on it before parsing.
func readTrust(path, sha256 string) (*bundles.Trust, []byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, hinted("give --trust FILE", "%w", err)
	}
	if err := checkDigest(path, text, sha256); err != nil {
		return nil, nil, err
	}
	t, err := bundles.LoadTrust(text)
	return t, text, err
}

func checkDigest(what string, text []byte, want string) error {
	got := strings.TrimPrefix(bundles.DigestOf(text), "sha256:")
	if want = strings.ToLower(strings.TrimPrefix(want, "sha256:")); want != "" && want != got {
		return hinted("compare with the digest that your team published: sha256sum trust.yaml", "%s has sha256 %s, not %s", what, got, want)
	}
	return nil
}
