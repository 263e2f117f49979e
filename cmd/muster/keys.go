// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/scaffold"
)

func newKeysCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make signing keys",
		Long:  "Keys are ECDSA P-256, in the files that cosign uses: either tool signs with them.",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysNewCmd())
	return cmd
}

type newKey struct {
	Name    string `json:"name"`
	Private string `json:"private"`
	Public  string `json:"public"`
	ID      string `json:"id"`
	Trust   string `json:"trust,omitempty"` // the trust file that it was added to
}

func newKeysNewCmd() *cobra.Command {
	var dir, passwordFile, trust, role string
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "new [NAME]",
		Short: "Make a key pair and add its public half to trust.yaml",
		Long: "Writes NAME.key (encrypted) and NAME.pub into your key directory ($MUSTER_KEYS, or muster/keys in your\n" +
			"configuration directory), never into a repository, and adds the public key to trust.yaml when there is one here.",
		Example: "  muster keys new secops-1\n  muster keys new ci-clock --role freshness",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := makeKey(cmd, args, dir, passwordFile)
			if err != nil {
				return err
			}
			if k.Trust, err = addToTrust(cmd, k, trust, role); err != nil {
				return err
			}
			return out.write(cmd.OutOrStdout(), k, func(w io.Writer) {
				fmt.Fprintf(w, "private  %s\npublic   %s\nid       %s\n", k.Private, k.Public, k.ID)
				if k.Trust != "" {
					fmt.Fprintf(w, "added to %s; commit it\n", k.Trust)
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "directory for the key (default your key directory)")
	f.StringVar(&passwordFile, "password-file", "", "file with the password (default $MUSTER_PASSWORD, $COSIGN_PASSWORD, a prompt)")
	f.StringVar(&trust, "trust", "trust.yaml", "trust file to add the key to, when it exists; empty for none")
	f.StringVar(&role, "role", "signer", "what the key is for: signer, freshness or collector")
	out.register(cmd)
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"signer", "freshness", "collector"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func makeKey(cmd *cobra.Command, args []string, dir, passwordFile string) (*newKey, error) {
	name := ""
	if len(args) == 1 {
		name = args[0]
	} else {
		u, err := user.Current()
		if err != nil {
			return nil, hinted("give the key a name", "%w", err)
		}
		name = u.Username
	}
	if !bundles.ValidName(name) {
		return nil, hinted("use a-z, 0-9, . and -", "%q cannot name a key", name)
	}
	if dir == "" {
		var err error
		if dir, err = keysDir(); err != nil {
			return nil, err
		}
	}
	k := &newKey{Name: name, Private: filepath.Join(dir, name+".key"), Public: filepath.Join(dir, name+".pub")}
	for _, p := range []string{k.Private, k.Public} {
		if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			return nil, hinted("choose another name", "%s exists already", p)
		}
	}
	pass, err := password(cmd, passwordFile, true)
	if err != nil {
		return nil, err
	}
	pair, err := bundles.GenerateKey(pass)
	if err != nil {
		return nil, err
	}
	if k.ID, err = bundles.PublicKeyID(pair.Public); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return k, errors.Join(bundles.WriteAtomic(k.Private, pair.Private, 0o600), bundles.WriteAtomic(k.Public, pair.Public, 0o644))
}

// addToTrust answers the trust file that was changed, "" when there is none.
func addToTrust(cmd *cobra.Command, k *newKey, path, role string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("trust") {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	pub, err := os.ReadFile(k.Public)
	if err != nil {
		return "", err
	}
	changed, err := scaffold.AddKey(text, scaffold.Role(role), k.Name, pub)
	if err != nil {
		return "", fmt.Errorf("the key is made, but not added to %s: %w", path, err)
	}
	return path, bundles.WriteAtomic(path, changed, 0o644)
}
