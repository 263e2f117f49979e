// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/fleet/statusref"
)

type rollFlags struct {
	fleetFlags
	filter fleet.Filter
	out    outputFlag
}

func newRollCmd() *cobra.Command {
	var f rollFlags
	cmd := &cobra.Command{
		Use:   "roll",
		Short: "Show what every host of the fleet says of itself",
		Long: "Reads the status branch. With a trust file the roll's signature is checked, and with the enrolled hosts\n" +
			"(--policy or --hosts) also every row against the report that its host signed. What cannot be checked is\n" +
			"said on stderr; what does not agree is an error.",
		Example: "  muster roll\n  muster roll --repo https://git.example.com/status.git --policy https://git.example.com/policy.git --trust trust.yaml\n" +
			"  muster roll --drifted -o json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.register(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&f.filter.Drifted, "drifted", false, "hosts whose kernel is not as declared")
	fl.BoolVar(&f.filter.Stale, "stale", false, "hosts that are lost, or whose release is stale")
	fl.BoolVar(&f.filter.Refused, "refused", false, "hosts that refused a release")
	f.out.register(cmd)
	return cmd
}

// rollResult is the JSON of muster roll: the roll, its hosts chosen by the flags.
type rollResult struct {
	// Verified is true when a trusted collector signed the roll; RowsChecked, when every row was compared
	// with its host's signed report.
	Verified    bool `json:"verified"`
	RowsChecked bool `json:"rowsChecked"`
	fleet.Roll
}

func (f *rollFlags) run(cmd *cobra.Command) error {
	if err := f.defaults(); err != nil {
		return err
	}
	remote, err := f.remote()
	if err != nil {
		return err
	}
	done := waiting(cmd.Context(), "reading the status branch of "+git.ShownURL(f.repo))
	status, err := statusref.ReadStatus(cmd.Context(), remote)
	done()
	if err != nil {
		return hinted("hosts report when status.url is set; an enrolled host or muster fleet collect folds the reports", "%w", err)
	}
	now := time.Now()
	res, err := f.check(cmd, status, now)
	if err != nil {
		return err
	}
	res.Hosts = f.filter.Select(res.Hosts)
	if res.Hosts == nil {
		res.Hosts = []fleet.RollRow{}
	}
	return f.out.write(cmd.OutOrStdout(), res, func(w io.Writer) {
		fmt.Fprint(w, fleet.RenderText(res.Roll, res.Hosts, now))
	})
}

// check believes as much as the flags give reason to, and says what it could not check.
func (f *rollFlags) check(cmd *cobra.Command, status *statusref.Status, now time.Time) (rollResult, error) {
	note := func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), "muster: note: "+text) }
	var trust *bundles.Trust
	var err error
	if f.trust != "" {
		if trust, _, err = readTrust(f.trust, ""); err != nil {
			return rollResult{}, err
		}
	}
	hosts, err := f.enrolled(cmd.Context(), trust, now)
	if err != nil {
		return rollResult{}, err
	}
	var res rollResult
	if res.Roll, err = fleet.DecodeRoll(status.Roll); err != nil {
		return rollResult{}, err
	}
	switch {
	case trust == nil:
		note("the roll's signature is not checked: no --trust")
	case len(trust.Collectors) == 0 && hosts == nil:
		note("the roll's signature is not checked: any enrolled host may have made it; give --policy or --hosts")
	default:
		trusted, err := fleet.TrustedCollectors(trust, hosts)
		if err != nil {
			return rollResult{}, err
		}
		if res.Roll, err = fleet.VerifyRoll(status.Roll, status.RollSig, trusted, now); err != nil {
			return rollResult{}, err
		}
		res.Verified = true
	}
	if hosts == nil {
		note("the rows are not compared with the hosts' signed reports: no --policy or --hosts")
		return res, nil
	}
	if problems := fleet.CheckRows(res.Roll, status.Reports, hosts, now); len(problems) > 0 {
		return rollResult{}, errors.Join(problems...)
	}
	res.RowsChecked = true
	return res, nil
}
