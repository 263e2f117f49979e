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
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/sshsig"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

func newLintCmd() *cobra.Command {
	var output, attest string
	var keys keyFlags
	cmd := &cobra.Command{
		Use:   "lint DIR...",
		Short: "Check policies and print every problem",
		Long: `Check the policies of each directory as one release would hold them, and print every problem with its
file, line and column and a hint. A file may be named in place of a directory.

Of a policy repository, which has a muster.yaml, what lies below its root is checked: what muster publish takes.
Policies are every *.yaml and *.yml file but muster.yaml and .muster/; the list of hosts, hosts.allowed_signers, is
checked with them. rollout.yaml and waivers/ are a problem each: this version does not know them yet. Warnings name
rules that are right and yet have no effect; they do not change the exit code. It is 0 when nothing is wrong.`,
		Example: `  muster lint .
  muster lint -o json policies/ | jq -r '.[].message'
  muster lint --attest lint.sigstore.json --key ci.key policies/ && muster publish --attestation lint.sigstore.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if attest == "" {
				return lint(cmd.OutOrStdout(), args, output)
			}
			return lintAndAttest(cmd, args, output, attest, &keys)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().StringVar(&attest, "attest", "", "write a signed statement that these files have no problems to `FILE`; one directory, which is the release's root")
	keys.register(cmd)
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// lintAndAttest signs the result of linting one directory, when there is nothing wrong.
func lintAndAttest(cmd *cobra.Command, dirs []string, output, file string, keys *keyFlags) error {
	if len(dirs) != 1 {
		return errors.New("a statement is about one directory")
	}
	if err := lint(cmd.OutOrStdout(), dirs, output); err != nil {
		return err
	}
	_, warnings, err := lintOne(dirs[0])
	if err != nil {
		return err
	}
	root, err := policyDir(dirs[0])
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	err = fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[path], err = os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
		return err
	})
	if err != nil {
		return err
	}
	signers, err := keys.load(cmd, "MUSTER_LINT_KEY", nil)
	if err != nil {
		return err
	}
	if len(signers) != 1 {
		return hinted("give --key or set MUSTER_LINT_KEY", "a statement needs one key, there are %d", len(signers))
	}
	statement, err := signers[0].AttestLint(cmd.Context(), files, len(warnings))
	if err != nil {
		return err
	}
	return bundles.WriteAtomic(file, statement, 0o644)
}

// finding is one line of lint's output.
type finding struct {
	policies.Problem
	Severity string `json:"severity"` // error or warning
}

// lintError says how much was found; what it was is on stdout.
type lintError struct{ count int }

func (e *lintError) Error() string {
	if e.count == 1 {
		return "1 problem found"
	}
	return fmt.Sprintf("%d problems found", e.count)
}

// Hint says what the count means for a release.
func (e *lintError) Hint() string { return "a release with any of these is refused as a whole" }

func lint(out io.Writer, dirs []string, output string) error {
	if output != "text" && output != "json" {
		return fmt.Errorf("unknown output %q: text or json", output)
	}
	findings := []finding{}
	failed := 0
	for _, dir := range dirs {
		problems, warnings, err := lintOne(dir)
		if err != nil {
			return err
		}
		failed += len(problems)
		for _, p := range problems {
			findings = append(findings, finding{p, "error"})
		}
		for _, p := range warnings {
			findings = append(findings, finding{p, "warning"})
		}
	}
	if err := printFindings(out, findings, output); err != nil {
		return err
	}
	if failed > 0 {
		return &lintError{failed}
	}
	return nil
}

// lintOne checks one directory or file; the positions it returns are named from the working directory.
func lintOne(name string) (problems, warnings policies.Problems, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() {
		set, err := parseOne(name)
		return foundIn(set, err)
	}
	set, root, err := parsePolicies(name)
	if problems, warnings, err = foundIn(set, err); err != nil {
		return nil, nil, err
	}
	placeIn(root, warnings)
	unsupported, err := policies.UnsupportedIn(os.DirFS(root))
	if err != nil {
		return nil, nil, err
	}
	enrolled, err := lintEnrolled(os.DirFS(root))
	beside := append(unsupported, enrolled...)
	placeIn(root, beside)
	return append(problems, beside...), warnings, err
}

// foundIn tells what is wrong with policies from what kept them from being read.
func foundIn(set *policies.Set, err error) (problems, warnings policies.Problems, failure error) {
	switch {
	case err == nil:
		return nil, policies.Warnings(set), nil
	case errors.As(err, &problems):
		return problems, nil, nil
	}
	return nil, nil, err
}

// checkEnrolled refuses a list of hosts that every host would refuse, and the release with it.
func checkEnrolled(content fs.FS) error {
	_, err := fleet.Enrolled(content)
	return err
}

// lintEnrolled finds the lists of hosts, wherever the root of the release is going to be, and what is wrong with them.
func lintEnrolled(dir fs.FS) (policies.Problems, error) {
	var problems policies.Problems
	err := fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.Name() != fleet.EnrolledFile || !d.Type().IsRegular():
			return nil
		}
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return err
		}
		_, err = fleet.ParseAllowedSigners(name, text)
		problems = append(problems, lineProblems(err)...)
		return nil
	})
	return problems, err
}

// lineProblems takes apart what is joined in err.
func lineProblems(err error) policies.Problems {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		var problems policies.Problems
		for _, one := range joined.Unwrap() {
			problems = append(problems, lineProblems(one)...)
		}
		return problems
	}
	line, is := errors.AsType[*sshsig.LineError](err)
	if !is {
		return nil
	}
	at := policies.Position{File: line.File, Line: line.Line, Column: line.Column}
	return policies.Problems{{Position: at, Message: line.Message, Hint: line.Hint()}}
}

func parseOne(name string) (*policies.Set, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	list, err := policies.ParseDocument(name, data)
	if err != nil {
		return nil, err
	}
	return policies.NewSet(list), nil
}

func printFindings(out io.Writer, findings []finding, output string) error {
	if output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(findings)
	}
	for _, f := range findings {
		mark := ""
		if f.Severity == "warning" {
			mark = "warning: "
		}
		if _, err := fmt.Fprintf(out, "%s: %s%s\n", f.Position, mark, f.Message); err != nil {
			return err
		}
		if f.Hint != "" {
			if _, err := fmt.Fprintf(out, "  hint: %s\n", f.Hint); err != nil {
				return err
			}
		}
	}
	return nil
}
