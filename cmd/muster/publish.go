// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/git"
	"github.com/muster-fleet/muster/cmd/internal/sources"
)

type publishFlags struct {
	attestations          []string
	dir, remote, freshKey string
	to                    []string
	rollbackTo, sequence  int64
	acknowledge           bool
	rewritten             bool
	freshOnly             bool
	freshFor              time.Duration
	keys                  keyFlags
	from                  sourceFlags
	out                   outputFlag
}

func newPublishCmd() *cobra.Command {
	var f publishFlags
	cmd := &cobra.Command{
		Use:   "publish [COMMIT]",
		Short: "Publish a commit's policies as a signed release",
		Long: "Takes the blobs of a commit (default HEAD) below root of muster.yaml, checks them, and appends them with\n" +
			"release.json and signatures to the branch muster/CHANNEL of the remote. Publishing what is published\n" +
			"already changes nothing. When two publish at once, the loser builds again on what the winner left.\n\n" +
			"The remote may be a registry (oci://REGISTRY/REPOSITORY:TAG). With --to the same release, with every signature,\n" +
			"is copied to further places afterwards; without a Git remote the first of them is the channel.\n\n" +
			"With --fresh-only nothing is published but a new fresh.json, a freshness signer's word that the newest\n" +
			"release is still current: run it on a schedule.",
		Example: "  muster publish\n  muster publish --to oci://registry.example.com/acme/policy:stable\n  muster publish --rollback-to 41\n  muster publish --fresh-only --fresh-key ci-clock.key",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, args)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.dir, "dir", ".", "the policy repository")
	fl.StringVar(&f.remote, "remote", "", "name or URL of the remote (default that of muster.yaml)")
	fl.StringArrayVar(&f.to, "to", nil, "also publish the same release there, e.g. oci://registry.example.com/acme/policy:stable; may be given several times")
	fl.Int64Var(&f.rollbackTo, "rollback-to", 0, "publish the files of this earlier sequence again, as a new release")
	fl.Int64Var(&f.sequence, "sequence", 0, "sequence of the release, above the last (default the next)")
	fl.BoolVar(&f.acknowledge, "acknowledge-removal", false, "say, signed, that removing more than half of a host's rules is meant")
	fl.BoolVar(&f.rewritten, "accept-rewritten", false, "go on although the channel's history is not what this repository saw before")
	fl.StringVar(&f.freshKey, "fresh-key", "", "freshness signer's key: also write fresh.json (default $MUSTER_FRESH_KEY)")
	fl.DurationVar(&f.freshFor, "fresh-for", 48*time.Hour, "how long fresh.json is valid")
	fl.BoolVar(&f.freshOnly, "fresh-only", false, "only renew fresh.json of the newest release")
	fl.StringArrayVar(&f.attestations, "attestation", nil, "bundle with a statement about the files or the release, such as muster lint --attest writes; may be given several times")
	cmd.ValidArgsFunction = first(revisionsIn(&f.dir))
	f.keys.register(cmd)
	f.keys.registerCommand(cmd)
	f.from.register(cmd)
	f.from.registerSigning(cmd)
	f.out.register(cmd)
	cmd.MarkFlagsMutuallyExclusive("fresh-only", "rollback-to")
	cmd.MarkFlagsMutuallyExclusive("fresh-only", "sequence")
	return cmd
}

func (f *publishFlags) run(cmd *cobra.Command, args []string) error {
	rev := "HEAD"
	if len(args) == 1 {
		rev = args[0]
	}
	p, copies, err := f.project(rev)
	if err != nil {
		return err
	}
	o, err := f.options(cmd, p)
	if err != nil {
		return err
	}
	lookBack := 0
	if f.rollbackTo > 0 {
		lookBack = deepLookBack
	}
	ch, err := f.from.channel(p.url, p.trust.Channel, o.Keys, lookBack)
	if err != nil {
		return err
	}
	if ch, err = p.remembering(ch, f.rewritten); err != nil {
		return err
	}
	end := func() {}
	if o.External == nil { // which may have something to say on the terminal itself
		end = waiting(cmd.Context(), "publishing to "+git.ShownURL(p.url))
	}
	done, err := bundles.Publish(cmd.Context(), ch, o)
	end()
	if err != nil {
		return err
	}
	if done.Over != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "muster: warning: built over a tip that is no release of this fleet: %s\n", done.Over)
	}
	if done.TrustChanged {
		fmt.Fprintf(cmd.ErrOrStderr(), "muster: warning: trust.yaml changed and its version is still %d: hosts that joined keep the file they pinned, until muster join --force\n", p.trust.Version)
	}
	res := publishResult{Published: done}
	if res.Copies, err = f.copy(cmd, p, ch, done, o.Keys, copies); err != nil {
		return err
	}
	return f.out.write(cmd.OutOrStdout(), res, func(w io.Writer) {
		f.describe(w, p, done)
		for _, c := range res.Copies {
			c.describe(w)
		}
	})
}

// deepLookBack is how far back in a registry an old release is searched.
const deepLookBack = 256

// publishResult is the JSON of muster publish.
type publishResult struct {
	*bundles.Published
	Copies []publishedCopy `json:"copies,omitempty"`
}

type publishedCopy struct {
	To       string           `json:"to"`
	Changed  bool             `json:"changed"`
	Revision bundles.Revision `json:"revision"`
}

func (c publishedCopy) describe(w io.Writer) {
	if c.Changed {
		fmt.Fprintf(w, "copied to %s (%.19s)\n", c.To, c.Revision)
	} else {
		fmt.Fprintf(w, "nothing changed at %s (%.19s)\n", c.To, c.Revision)
	}
}

// project opens the project, and answers where copies go.
func (f *publishFlags) project(rev string) (*project, []string, error) {
	p, err := openProject(f.dir, rev, f.remote)
	if errors.Is(err, git.ErrNoRemote) && f.remote == "" && len(f.to) > 0 {
		p, err = openProject(f.dir, rev, f.to[0])
		return p, f.to[1:], err
	}
	return p, f.to, err
}

// copy brings the release that was published to the other places, each as a channel of its own.
func (f *publishFlags) copy(cmd *cobra.Command, p *project, ch bundles.Channel, done *bundles.Published, keys []*bundles.KeySigner, to []string) ([]publishedCopy, error) {
	if len(to) == 0 {
		return nil, nil
	}
	raw, _, err := ch.Release(done.Revision)
	if err != nil {
		return nil, err
	}
	var out []publishedCopy
	for _, url := range to {
		target, err := f.from.channel(url, p.trust.Channel, keys, 0)
		if err != nil {
			return nil, err
		}
		end := waiting(cmd.Context(), "copying to "+git.ShownURL(url))
		c, err := bundles.CopyRelease(cmd.Context(), raw, target, p.trust, time.Now())
		end()
		if err != nil {
			return nil, fmt.Errorf("published, but not copied to %s: %w", url, err)
		}
		out = append(out, publishedCopy{To: url, Changed: c.Changed, Revision: c.Revision})
	}
	return out, nil
}

func (f *publishFlags) options(cmd *cobra.Command, p *project) (bundles.PublishOptions, error) {
	o := bundles.PublishOptions{
		Trust: p.trust, TrustBytes: p.text, TrustSignatures: p.signed, RollbackTo: f.rollbackTo, Sequence: f.sequence,
		AcknowledgeRemoval: f.acknowledge, Now: time.Now(), Check: checkEnrolled,
		Fresh: bundles.FreshOptions{Valid: f.freshFor, Only: f.freshOnly},
	}
	if key := cmp.Or(f.freshKey, os.Getenv("MUSTER_FRESH_KEY")); key != "" {
		k, err := openKey(cmd, key, f.keys.passwordFile)
		if err != nil {
			return o, err
		}
		o.Fresh.Key = k
	} else if f.freshOnly {
		return o, hinted("give --fresh-key or set MUSTER_FRESH_KEY", "renewing fresh.json needs a freshness signer's key")
	}
	if f.freshOnly {
		return o, nil
	}
	var err error
	if o.Content, err = p.content(); err != nil {
		return o, err
	}
	for _, name := range f.attestations {
		data, err := os.ReadFile(name)
		if err != nil {
			return o, err
		}
		o.Attestations = append(o.Attestations, data)
	}
	o.External = f.keys.external(cmd)
	o.Keys, err = f.keys.load(cmd, "MUSTER_KEY", p.trust.Signers)
	return o, err
}

func (f *publishFlags) describe(w io.Writer, p *project, d *bundles.Published) {
	branch := "muster/" + p.trust.Channel
	if !sources.IsGit(p.url) {
		branch = p.url
	}
	switch {
	case !d.Changed:
		fmt.Fprintf(w, "nothing changed: release %d (%.19s) on %s holds these files already\n", d.Sequence, d.Digest, branch)
		return
	case f.freshOnly:
		fmt.Fprintf(w, "release %d (%.19s) on %s is vouched for until %s\n", d.Sequence, d.Digest, branch,
			time.Now().Add(f.freshFor).UTC().Format(time.RFC3339))
		return
	}
	fmt.Fprintf(w, "published release %d (%.19s) with %d files on %s, signed by %s\n", d.Sequence, d.Digest, d.Files, branch,
		strings.Join(d.Signers, ", "))
	if need := p.trust.Threshold.Enforce - len(d.Signers); need > 0 {
		fmt.Fprintf(w, "hosts only audit it until %d more signer(s) run muster approve\n", need)
	}
}
