// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/oci"
	"github.com/muster-fleet/muster/cmd/internal/sources"
)

func newBundleCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Carry a release to where no network reaches, as one file",
		Long: "The file holds the release, every signature, the trust file and fresh.json. A host follows it as\n" +
			"bundle:///path/to/file, or the directory that it was imported into as dir:///path.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBundleExportCmd(), newBundleImportCmd())
	return cmd
}

// carryFlags are what pull, bundle export and bundle import share: whose release to accept, and how to reach it.
type carryFlags struct {
	trust, sha256 string
	from          sourceFlags
	out           outputFlag
}

func (f *carryFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.trust, "trust", "/etc/muster/trust.yaml", "trust file")
	cmd.Flags().StringVar(&f.sha256, "trust-sha256", "", "what the trust file's sha256 must be")
	_ = cmd.MarkFlagFilename("trust", "yaml")
	f.from.register(cmd)
	f.out.register(cmd)
}

// carried is the JSON of these verbs.
type carried struct {
	To       string        `json:"to"`
	Changed  bool          `json:"changed"`
	Sequence int64         `json:"sequence"`
	Digest   string        `json:"digest"`
	Level    bundles.Level `json:"level"`
	Signers  []string      `json:"signers"`
	Files    int           `json:"files"`
}

// load is a verified release on its way.
type load struct {
	raw   *bundles.Raw
	trust *bundles.Trust
	files map[string][]byte
	res   carried
}

// take reads a release and verifies it as a host would that has no marks: what is carried is worth carrying.
func (f *carryFlags) take(ctx context.Context, source string) (*load, error) {
	trust, text, err := readTrust(f.trust, f.sha256)
	if err != nil {
		return nil, err
	}
	raw, err := f.from.fetch(ctx, source, trust.Channel)
	if err != nil {
		return nil, err
	}
	v, err := bundles.Verify(raw, trust, bundles.Seen{}, time.Now())
	if err != nil {
		return nil, err
	}
	files, err := bundles.ReadRelease(ctx, raw.FS)
	if err != nil {
		return nil, err
	}
	release := v.Release()
	// What is not listed does not exist.
	maps.DeleteFunc(files, func(name string, _ []byte) bool {
		_, listed := slices.BinarySearchFunc(release.Files, name, func(l bundles.ReleaseFile, n string) int { return strings.Compare(l.Path, n) })
		return !listed && !strings.HasPrefix(name, bundles.MetaDir+"/")
	})
	// The trust file goes along, for muster join; who joins says which digest it must have.
	files[bundles.TrustFile(trust.Version)] = text
	return &load{
		raw: &bundles.Raw{Revision: raw.Revision, FS: bundles.NewMemFS(files)}, trust: trust, files: files,
		res: carried{
			Changed: true, Sequence: release.Sequence, Digest: v.Digest(), Level: v.Level(), Signers: v.Signers(), Files: len(release.Files),
		},
	}, nil
}

func (f *carryFlags) done(cmd *cobra.Command, verb string, c carried) error {
	return f.out.write(cmd.OutOrStdout(), c, func(w io.Writer) {
		if !c.Changed {
			fmt.Fprintf(w, "nothing changed: release %d (%.19s) is at %s already\n", c.Sequence, c.Digest, c.To)
			return
		}
		fmt.Fprintf(w, "%s release %d (%.19s) with %d files, level %s, to %s\n", verb, c.Sequence, c.Digest, c.Files, c.Level, c.To)
	})
}

func newBundleExportCmd() *cobra.Command {
	var f carryFlags
	cmd := &cobra.Command{
		Use:     "export SOURCE FILE",
		Short:   "Write the release that a source has now into one file",
		Long:    "The release is verified first. The same release gives the same bytes.",
		Example: "  muster bundle export https://git.example.com/policy.git policy.muster --trust trust.yaml\n  muster bundle export oci://registry.example.com/acme/policy:stable policy.muster --trust trust.yaml",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := f.take(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			var packed bytes.Buffer
			if err := bundles.WriteArchive(&packed, l.files); err != nil {
				return err
			}
			l.res.To = args[1]
			if err := bundles.WriteAtomic(args[1], packed.Bytes(), 0o644); err != nil {
				return err
			}
			return f.done(cmd, "exported", l.res)
		},
	}
	f.register(cmd)
	return cmd
}

func newBundleImportCmd() *cobra.Command {
	var f carryFlags
	var to string
	cmd := &cobra.Command{
		Use:   "import FILE --to DIR|OCI-REFERENCE|GIT-URL",
		Short: "Bring a release out of a file to a directory, a registry or a repository",
		Long:  "The release is verified first. A directory is replaced as a whole; a channel gets the release as it is.",
		Example: "  muster bundle import /media/usb/policy.muster --to /srv/policy\n" +
			"  muster bundle import policy.muster --to oci://registry.internal/policy:stable --trust trust.yaml",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.bring(cmd, args[0], to, "imported", oci.IsReference(to) || isRepository(to))
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "where to")
	_ = cmd.MarkFlagRequired("to")
	f.register(cmd)
	return cmd
}

func newPullCmd() *cobra.Command {
	var f carryFlags
	cmd := &cobra.Command{
		Use:   "pull SOURCE DIR",
		Short: "Bring the release that a source has now into a directory",
		Long:  "The release is verified first; the directory is replaced as a whole.",
		Example: "  muster pull oci://registry.example.com/acme/policy:stable ./policy --trust trust.yaml\n" +
			"  muster pull 'oci://registry.example.com/acme/policy?semver=1.x' /srv/policy",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return f.bring(cmd, args[0], args[1], "pulled", false) },
	}
	f.register(cmd)
	return cmd
}

// bring takes a release from a source to a channel or a directory.
func (f *carryFlags) bring(cmd *cobra.Command, source, to, verb string, channel bool) error {
	l, err := f.take(cmd.Context(), source)
	if err != nil {
		return err
	}
	l.res.To = to
	if channel {
		ch, err := f.from.channel(to, l.trust.Channel, nil, 0)
		if err != nil {
			return err
		}
		p, err := bundles.CopyRelease(cmd.Context(), l.raw, ch, l.trust, time.Now())
		if err != nil {
			return err
		}
		l.res.Changed = p.Changed
		return f.done(cmd, verb, l.res)
	}
	if err := replaceDir(to, l.files); err != nil {
		return err
	}
	return f.done(cmd, verb, l.res)
}

// isRepository says whether a target is a Git repository, by its URL or by what is there.
func isRepository(to string) bool {
	if _, err := os.Stat(to); err != nil {
		return sources.IsURL(to)
	}
	return exists(to, ".git") || exists(to, "HEAD")
}

// replaceDir writes the files aside and puts the directory in the place of the old one, which must be a release too.
func replaceDir(dir string, files map[string][]byte) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 && !exists(dir, bundles.MetaDir) {
		return hinted("choose another directory", "%s holds something else than a release", dir)
	}
	aside, err := os.MkdirTemp(filepath.Dir(dir), ".muster-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()
	next := filepath.Join(aside, "next")
	for name, data := range files {
		path := filepath.Join(next, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	// One swap: who reads the directory finds the old release or the new one.
	err = unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Rename(next, dir)
	}
	return err
}
