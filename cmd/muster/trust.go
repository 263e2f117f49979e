// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/policies"
)

func newTrustCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "trust", Short: "Show, check and replace trust files"}
	cmd.AddCommand(newTrustShowCmd(), newTrustCheckCmd(), newTrustNextCmd())
	return cmd
}

// trustView is the JSON of muster trust show and check.
type trustView struct {
	Fleet       string                 `json:"fleet"`
	Channel     string                 `json:"channel"`
	Version     int64                  `json:"version"`
	Epoch       int64                  `json:"epoch"`
	MinSequence int64                  `json:"minSequence"`
	SHA256      string                 `json:"sha256"`
	Pinned      int64                  `json:"pinned,omitempty"` // the version that the operator installed, on a host
	Threshold   thresholdView          `json:"threshold"`
	Signers     []signerView           `json:"signers"`
	Freshness   []signerView           `json:"freshness,omitempty"`
	Collectors  []signerView           `json:"collectors,omitempty"`
	Kinds       []string               `json:"kinds,omitempty"`
	Namespaces  []string               `json:"namespaces,omitempty"`
	Hosts       []policies.HostPattern `json:"hosts,omitempty"`
	Revoked     revokedView            `json:"revoked"`
	Warnings    []string               `json:"warnings,omitempty"`
}

type thresholdView struct {
	Audit   int `json:"audit"`
	Enforce int `json:"enforce"`
	Trust   int `json:"trust"`
}

type revokedView struct {
	Keys     []string `json:"keys"`
	Releases []string `json:"releases"`
}

type signerView struct {
	Name    string `json:"name"`
	ID      string `json:"id"` // what revoked.keys names
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
	Revoked bool   `json:"revoked,omitempty"`
}

func viewTrust(t *bundles.Trust) trustView {
	view := func(list []bundles.Signer) []signerView {
		var out []signerView
		for i := range list {
			v := signerView{Name: list[i].Name, ID: list[i].ID(), Revoked: t.RevokedKey(list[i].ID())}
			if k := list[i].Keyless; k != nil {
				v.Issuer, v.Subject = k.Issuer, k.Subject
			}
			out = append(out, v)
		}
		return out
	}
	out := trustView{
		Fleet: t.Fleet, Channel: t.Channel, Version: t.Version, Epoch: t.Epoch, MinSequence: t.MinSequence, SHA256: t.Digest(),
		Threshold: thresholdView(t.Threshold), Signers: view(t.Signers), Collectors: view(t.Collectors), Kinds: t.Scope.Kinds, Namespaces: t.Scope.Namespaces, Hosts: t.Scope.Hosts,
		Revoked: revokedView{append([]string{}, t.Revoked.Keys...), append([]string{}, t.Revoked.Releases...)}, Warnings: t.Warnings(),
	}
	if t.Freshness != nil {
		out.Freshness = view(t.Freshness.Signers)
	}
	return out
}

func (v *trustView) print(w io.Writer) {
	fmt.Fprintf(w, "fleet %s, channel %s: version %d, epoch %d\nsha256 %s\n", v.Fleet, v.Channel, v.Version, v.Epoch, v.SHA256)
	if v.Pinned != 0 && v.Pinned != v.Version {
		fmt.Fprintf(w, "installed here: version %d; the rest came signed with releases\n", v.Pinned)
	}
	fmt.Fprintf(w, "needed: %d to audit, %d to enforce, %d to replace this file\n", v.Threshold.Audit, v.Threshold.Enforce, v.Threshold.Trust)
	for _, group := range []struct {
		role string
		list []signerView
	}{{"signer", v.Signers}, {"freshness", v.Freshness}, {"collector", v.Collectors}} {
		for _, s := range group.list {
			line := fmt.Sprintf("%-9s  %-20s  %.16s…", group.role, s.Name, s.ID)
			if s.Issuer != "" {
				line += fmt.Sprintf("  %s by %s", s.Subject, s.Issuer)
			}
			if s.Revoked {
				line += "  REVOKED"
			}
			fmt.Fprintln(w, line)
		}
	}
	if len(v.Kinds)+len(v.Namespaces)+len(v.Hosts) > 0 {
		fmt.Fprintf(w, "scope      kinds %s, namespaces %s, hosts %s\n", listOrAll(v.Kinds), listOrAll(v.Namespaces), listOrAll(v.Hosts))
	}
	for _, d := range append(append([]string{}, v.Revoked.Keys...), v.Revoked.Releases...) {
		fmt.Fprintf(w, "revoked    %s\n", d)
	}
	for _, s := range v.Warnings {
		fmt.Fprintf(w, "warning: %s\n", s)
	}
}

func listOrAll[T ~string](list []T) string {
	if len(list) == 0 {
		return "all"
	}
	return strings.Trim(fmt.Sprint(list), "[]")
}

func newTrustShowCmd() *cobra.Command {
	var stateDir string
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Show whom a trust file believes, and on a host which version is in force",
		Long: "Without FILE it shows this host's: the pinned file and, when signed successors of it came with releases, the\n" +
			"newest of them. The ids are what revoked.keys names.",
		Example: "  muster trust show\n  muster trust show trust.yaml -o json | jq -r '.signers[].id'",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := "/etc/muster/trust.yaml"
			if len(args) == 1 {
				file = args[0]
			}
			pinned, _, err := readTrust(file, "")
			if err != nil {
				return err
			}
			if len(args) == 1 && !cmd.Flags().Changed("state-dir") {
				stateDir = ""
			}
			view := viewTrust(pinned)
			if stateDir != "" {
				inForce, _, err := bundles.NewTrustStore(stateDir).Load(pinned)
				if err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "muster: warning: %v\n", err)
				}
				view = viewTrust(inForce)
				view.Pinned = pinned.Version
			}
			return out.write(cmd.OutOrStdout(), view, view.print)
		},
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", "/var/lib/muster", "a host's state directory, for the versions that came with releases")
	_ = cmd.MarkFlagDirname("state-dir")
	out.register(cmd)
	return cmd
}

func newTrustCheckCmd() *cobra.Command {
	var from string
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with a trust file, by itself and as the successor of another",
		Long: "Exits with 1 when a host would not load the file, or would not follow it from the one that --from names.\n" +
			"Warnings name what loads and is hardly meant.",
		Example: "  muster trust check trust.yaml\n  git show HEAD~1:trust.yaml > before.yaml && muster trust check trust.yaml --from before.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, text, err := readTrust(args[0], "")
			if err != nil {
				return err
			}
			view := viewTrust(t)
			if from != "" {
				before, _, err := readTrust(from, "")
				if err != nil {
					return err
				}
				if _, _, err := (bundles.Link{Trust: text}).Review(before); err != nil {
					return err
				}
			}
			return out.write(cmd.OutOrStdout(), view, func(w io.Writer) {
				for _, s := range view.Warnings {
					fmt.Fprintf(w, "warning: %s\n", s)
				}
				fmt.Fprintf(w, "%s: version %d of fleet %s, channel %s: ok\n", args[0], t.Version, t.Fleet, t.Channel)
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "the trust file before it")
	_ = cmd.MarkFlagFilename("from", "yaml")
	out.register(cmd)
	return cmd
}

type trustNextFlags struct {
	dir, remote, from string
	keys              keyFlags
	access            sourceFlags
	out               outputFlag
}

func newTrustNextCmd() *cobra.Command {
	var f trustNextFlags
	cmd := &cobra.Command{
		Use:   "next",
		Short: "Sign the next version of the trust file",
		Long: "Edit trust.yaml, raise its version by one, and run this: it shows what changes against the channel's trust\n" +
			"file, signs with your keys and writes the signatures beside trust.yaml. Signers of both versions do the same;\n" +
			"commit what was written. When enough have signed, muster publish takes it along and hosts follow.",
		Example: "  $EDITOR trust.yaml && muster trust next && git add trust.yaml trust.signatures && git commit",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.dir, "dir", ".", "the policy repository's directory")
	fl.StringVar(&f.remote, "remote", "", "name or URL of the remote (default muster.yaml's)")
	fl.StringVar(&f.from, "from", "", "the trust file before it (default the channel's)")
	_ = cmd.MarkFlagDirname("dir")
	_ = cmd.MarkFlagFilename("from", "yaml")
	f.keys.register(cmd)
	f.access.register(cmd)
	f.out.register(cmd)
	return cmd
}

// trustNext is the JSON of muster trust next.
type trustNext struct {
	Version  int64            `json:"version"`
	SHA256   string           `json:"sha256"`
	Diff     string           `json:"diff"`
	Standing bundles.Standing `json:"standing"`
	Complete bool             `json:"complete"`
	Wrote    []string         `json:"wrote"`
	Warnings []string         `json:"warnings,omitempty"`
}

func (f *trustNextFlags) run(cmd *cobra.Command) error {
	p, err := openTrustProject(f.dir, f.remote)
	if err != nil {
		return err
	}
	file := filepath.Join(f.dir, p.Trust)
	next, text, err := readTrust(file, "")
	if err != nil {
		return err
	}
	before, old, err := f.before(cmd, p, next)
	if err != nil {
		return err
	}
	dir := filepath.Join(f.dir, signaturesDir(p.Trust, next.Version))
	link := bundles.Link{Trust: text, Signatures: map[string][]byte{}}
	if err := readSignatureFiles(dir, link.Signatures); err != nil {
		return err
	}
	res := trustNext{
		Version: next.Version, SHA256: next.Digest(), Wrote: []string{}, Warnings: next.Warnings(),
		Diff: string(diff.Diff(fmt.Sprintf("version %d", before.Version), old, fmt.Sprintf("version %d", next.Version), text)),
	}
	if _, _, err := link.Review(before); err != nil {
		return err
	}
	if err := f.sign(cmd, link, before, next, dir, &res); err != nil {
		return err
	}
	_, standing, err := link.Review(before)
	if err != nil {
		return err
	}
	res.Standing, res.Complete = *standing, standing.Complete()
	return f.out.write(cmd.OutOrStdout(), res, func(w io.Writer) { res.print(w, before.Version) })
}

// before is the trust file that this one follows: of the channel, or a file.
func (f *trustNextFlags) before(cmd *cobra.Command, p *trustProject, next *bundles.Trust) (*bundles.Trust, []byte, error) {
	if f.from != "" {
		return readTrust(f.from, "")
	}
	raw, err := f.access.fetch(cmd.Context(), p.url, next.Channel)
	if err != nil {
		return nil, nil, hinted("give --from FILE", "the channel's trust file: %w", err)
	}
	name := bundles.TrustFile(next.Version - 1)
	text, err := readRawFile(raw, name)
	if err != nil {
		return nil, nil, hinted("raise the version by one from the channel's, or give --from FILE", "the channel has no version %d of the trust file: %w", next.Version-1, err)
	}
	t, err := bundles.LoadTrust(text)
	return t, text, err
}

// sign adds the bundles of the keys at hand that either version names.
func (f *trustNextFlags) sign(cmd *cobra.Command, link bundles.Link, before, next *bundles.Trust, dir string, res *trustNext) error {
	both := append(append([]bundles.Signer{}, before.Signers...), next.Signers...)
	keys, err := f.keys.load(cmd, "MUSTER_KEY", both)
	if err != nil {
		return err
	}
	for _, k := range keys {
		name := ""
		for i := range both {
			if both[i].ID() == k.ID() {
				name = both[i].Name
			}
		}
		if name == "" {
			return hinted("only signers of the old or the new trust file can sign it", "the key %.12s… is in neither version", k.ID())
		}
		sig, err := k.Sign(cmd.Context(), link.Trust)
		if err != nil {
			return err
		}
		file := path.Base(bundles.TrustSignatureFile(next.Version, name))
		link.Signatures[file] = sig
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := bundles.WriteAtomic(filepath.Join(dir, file), sig, 0o644); err != nil {
			return err
		}
		res.Wrote = append(res.Wrote, filepath.Join(dir, file))
	}
	return nil
}

func (r *trustNext) print(w io.Writer, before int64) {
	fmt.Fprint(w, r.Diff)
	for _, s := range r.Warnings {
		fmt.Fprintf(w, "warning: %s\n", s)
	}
	for _, s := range r.Wrote {
		fmt.Fprintf(w, "wrote %s\n", s)
	}
	s := &r.Standing
	fmt.Fprintf(w, "signers of version %d: %d of %d (%s)\n", before, len(s.Old), s.OldNeeded, strings.Join(s.Old, ", "))
	fmt.Fprintf(w, "signers of version %d: %d of %d (%s)\n", r.Version, len(s.New), s.NewNeeded, strings.Join(s.New, ", "))
	if r.Complete {
		fmt.Fprintln(w, "complete: commit it, and muster publish")
	} else {
		fmt.Fprintln(w, "not complete: commit it, and the next signer runs muster trust next")
	}
}
