// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/reconciler/control"
)

type planFlags struct {
	agentFlags
	ref, repo string
	failing   bool
}

func newPlanCmd() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan [DIR]",
		Short: "Show what would change on this host",
		Long: "Without an argument: what the agent would do to the kernel now for the release that it holds. With a\n" +
			"directory, or a commit of a policy repository (--ref), what those policies would change here, compared with\n" +
			"what is in force. Nothing is changed.",
		Example: "  muster plan\n  muster plan ./policies\n  muster plan --ref origin/main",
		Args:    cobra.MaximumNArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&f.ref, "ref", "", "commit, branch or tag of a policy repository")
	_ = cmd.RegisterFlagCompletionFunc("ref", revisionsIn(&f.repo))
	cmd.Flags().StringVar(&f.repo, "repo", ".", "the policy repository of --ref")
	cmd.Flags().BoolVar(&f.failing, "exit-code", false, "exit with 1 when something would change")
	return cmd
}

func (f *planFlags) run(cmd *cobra.Command, args []string) error {
	plan, err := f.plan(cmd, args)
	if err != nil {
		return err
	}
	if err := f.out.write(cmd.OutOrStdout(), plan, func(w io.Writer) { printPlan(w, plan) }); err != nil {
		return err
	}
	if f.failing && len(plan.Steps) > 0 {
		return fmt.Errorf("%d steps to be done", len(plan.Steps))
	}
	return nil
}

func (f *planFlags) plan(cmd *cobra.Command, args []string) (*control.Plan, error) {
	if len(args) == 0 && f.ref == "" {
		defer waiting(cmd.Context(), "waiting for the agent to read the kernel")()
		return f.client().Plan(cmd.Context())
	}
	if len(args) == 1 && f.ref != "" {
		return nil, fmt.Errorf("a directory and --ref contradict each other")
	}
	set, err := f.policies(args)
	if err != nil {
		return nil, err
	}
	offline, err := f.offline(cmd)
	if err != nil {
		return nil, err
	}
	defer waiting(cmd.Context(), "compiling the policies")()
	return offline.Plan(set), nil
}

// policies reads the directory, or the blobs of the commit.
func (f *planFlags) policies(args []string) (*policies.Set, error) {
	if f.ref == "" {
		set, _, err := parsePolicies(args[0])
		return set, err
	}
	repo, err := git.OpenRepository(f.repo)
	if err != nil {
		return nil, hinted("run this inside a policy repository, or give --repo", "%w", err)
	}
	commit, err := repo.Resolve(f.ref)
	if err != nil {
		return nil, err
	}
	text, err := commit.File(bundles.ProjectFile)
	if err != nil {
		return nil, err
	}
	project, err := bundles.LoadProject(text)
	if err != nil {
		return nil, err
	}
	files, err := commit.Files(project.Root)
	if err != nil {
		return nil, err
	}
	return parseFiles(files)
}

// parseFiles parses the documents among the files of a commit.
func parseFiles(files map[string][]byte) (*policies.Set, error) {
	return policies.Parse(bundles.NewMemFS(files))
}

func printPlan(w io.Writer, p *control.Plan) {
	if p.Release != nil {
		fmt.Fprintf(w, "release %d (%s), level %s\n", p.Release.Sequence, shortDigest(p.Release.Digest), p.Release.Level)
	}
	for i, step := range p.Steps {
		fmt.Fprintf(w, "%d. %s\n", i+1, printable(step.Text))
	}
	if len(p.Steps) == 0 {
		fmt.Fprintln(w, "nothing to do: the kernel holds what is declared")
	}
	rows := [][]string{}
	for _, c := range p.Changes {
		rows = append(rows, []string{c.Op, string(c.Subject), c.Policy, c.Rule})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w, "\nrules:")
		table(w, rows)
	}
	if p.Held != "" {
		fmt.Fprintf(w, "\nheld in audit: %s\n", printable(p.Held))
	}
	if len(p.Gaps) > 0 {
		fmt.Fprintln(w, "\nnot enforceable here:")
		rows = [][]string{}
		for _, g := range p.Gaps {
			rows = append(rows, []string{policyID(&g.Policy), fmt.Sprintf("rule %d", g.Rule), g.Reason, g.Detail})
		}
		table(w, rows)
	}
	if p.Audit != nil {
		fmt.Fprintln(w, "\nsigned for audit only, and therefore not in force:")
		printPlan(w, p.Audit)
	}
}
