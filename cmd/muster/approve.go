// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
)

type approveFlags struct {
	dir, remote string
	yes, plan   bool
	rewritten   bool
	keys        keyFlags
	from        sourceFlags
	out         outputFlag
}

func newApproveCmd() *cobra.Command {
	var f approveFlags
	cmd := &cobra.Command{
		Use:   "approve",
		Short: "Show what the newest release changes, sign it and push the signature",
		Long: "Checks the release at the channel's tip, shows how it differs from the newest one with enough signers, and\n" +
			"adds your signature to it. When another release comes between the review and the push, nothing is signed.",
		Example: "  muster approve\n  muster approve --plan\n  muster approve --yes --key secops-2.key",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.dir, "dir", ".", "the policy repository")
	fl.StringVar(&f.remote, "remote", "", "name or URL of the remote (default that of muster.yaml)")
	fl.BoolVar(&f.yes, "yes", false, "sign without asking")
	fl.BoolVar(&f.rewritten, "accept-rewritten", false, "go on although the channel's history is not what this repository saw before")
	fl.BoolVar(&f.plan, "plan", false, "only show what would be signed")
	f.keys.register(cmd)
	f.keys.registerCommand(cmd)
	f.from.register(cmd)
	f.from.registerSigning(cmd)
	f.out.register(cmd)
	return cmd
}

func (f *approveFlags) run(cmd *cobra.Command) error {
	p, err := openProject(f.dir, "HEAD", f.remote)
	if err != nil {
		return err
	}
	ch, err := f.from.channel(p.url, p.trust.Channel, nil, 0)
	if err != nil {
		return err
	}
	if ch, err = p.remembering(ch, f.rewritten); err != nil {
		return err
	}
	end := waiting(cmd.Context(), "reading the release at "+git.ShownURL(p.url))
	review, err := bundles.NewReview(cmd.Context(), ch, p.trust, time.Now())
	end()
	if err != nil {
		return err
	}
	text := cmd.OutOrStdout()
	if f.out.value == "json" {
		text = cmd.ErrOrStderr()
	}
	printReview(text, review)
	if f.plan {
		if f.out.value != "json" {
			return nil
		}
		return f.out.write(cmd.OutOrStdout(), review, func(io.Writer) {})
	}
	if !f.yes {
		if err := askYes(cmd); err != nil {
			return err
		}
	}
	return f.sign(cmd, p, review)
}

func (f *approveFlags) sign(cmd *cobra.Command, p *project, review *bundles.Review) error {
	keys, err := f.keys.load(cmd, "MUSTER_KEY", p.trust.Signers)
	if err != nil {
		return err
	}
	external := f.keys.external(cmd)
	if len(keys) != 1 && external == nil {
		return hinted("give exactly one --key", "approving needs one key, %d were found", len(keys))
	}
	ch, err := f.from.channel(p.url, p.trust.Channel, keys, 0)
	if err != nil {
		return err
	}
	if ch, err = p.remembering(ch, f.rewritten); err != nil {
		return err
	}
	var done *bundles.Published
	if external != nil { // which may have something to say on the terminal itself
		done, err = bundles.ApproveWith(cmd.Context(), ch, review, p.trust, external, time.Now())
	} else {
		end := waiting(cmd.Context(), "publishing the signature at "+git.ShownURL(p.url))
		done, err = bundles.Approve(cmd.Context(), ch, review, p.trust, keys[0], time.Now())
		end()
	}
	if err != nil {
		return err
	}
	return f.out.write(cmd.OutOrStdout(), done, func(w io.Writer) {
		if !done.Changed {
			fmt.Fprintf(w, "nothing changed: you signed release %d already\n", done.Sequence)
			return
		}
		fmt.Fprintf(w, "approved release %d (%.19s), signed by %s\n", done.Sequence, done.Digest, strings.Join(done.Signers, ", "))
		if need := p.trust.Threshold.Enforce - len(done.Signers); need > 0 {
			fmt.Fprintf(w, "%d more signer(s) are needed until hosts enforce it\n", need)
		}
	})
}

func printReview(w io.Writer, r *bundles.Review) {
	rel := r.Release.Release()
	fmt.Fprintf(w, "release %d of %s/%s, %s\n", rel.Sequence, rel.Name, rel.Channel, r.Release.Digest())
	fmt.Fprintf(w, "from commit %s, issued %s, signed by %s\n", rel.Source.Commit, rel.Issued.Format(time.RFC3339),
		strings.Join(r.Release.Signers(), ", "))
	if rel.AcknowledgeRemoval {
		fmt.Fprintln(w, "it acknowledges the removal of most of a host's rules")
	}
	if r.Against == nil {
		fmt.Fprintln(w, "against nothing: no earlier release had enough signers")
	} else {
		fmt.Fprintf(w, "against release %d\n", r.Against.Release().Sequence)
	}
	if len(r.Changes) == 0 {
		fmt.Fprintln(w, "no file differs")
	}
	// Who wrote the release must not write on the approver's terminal: a file could else hide the others.
	for _, c := range r.Changes {
		fmt.Fprintf(w, "\n%s %s\n%s", c.What, c.Path, printableText(c.Diff))
	}
	fmt.Fprintf(w, "\n%d more signer(s) needed for enforce\n", r.Needed)
}

func askYes(cmd *cobra.Command) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return hinted("give --yes when nobody is there to ask", "nobody confirmed the signature")
	}
	fmt.Fprint(cmd.ErrOrStderr(), "Sign it? [y/N] ")
	line, err := interruptible(cmd.Context(), func() (string, error) { return bufio.NewReader(cmd.InOrStdin()).ReadString('\n') })
	if err != nil {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
		return hinted("", "not signed")
	}
	return nil
}
