// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/muster-fleet/muster/bundles"
)

// hintedError is an error with something that the operator can do.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }
func (e *hintedError) Hint() string  { return e.hint }

func hinted(hint, format string, args ...any) error {
	return &hintedError{fmt.Errorf(format, args...), hint}
}

// keyFlags are how the verbs that sign find their keys.
type keyFlags struct {
	keys         []string
	passwordFile string
	command      string
}

func (f *keyFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.keys, "key", nil, "private key file; may be given several times (default $MUSTER_KEY, then your keys that the trust file names)")
	cmd.Flags().StringVar(&f.passwordFile, "password-file", "", "file with the keys' password (default $MUSTER_PASSWORD, $COSIGN_PASSWORD, a prompt)")
	_ = cmd.MarkFlagFilename("key", "key")
	_ = cmd.MarkFlagFilename("password-file")
}

// keysDir is where muster keys new puts keys: outside every repository.
func keysDir() (string, error) {
	if dir := os.Getenv("MUSTER_KEYS"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", hinted("set MUSTER_KEYS to a directory for keys", "no directory for keys: %w", err)
	}
	return filepath.Join(dir, "muster", "keys"), nil
}

// password answers the password for a key; confirm asks twice, for a new one.
func password(cmd *cobra.Command, file string, confirm bool) ([]byte, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return []byte(strings.TrimRight(string(data), "\r\n")), nil
	}
	for _, name := range []string{"MUSTER_PASSWORD", "COSIGN_PASSWORD"} {
		if v, ok := os.LookupEnv(name); ok {
			return []byte(v), nil
		}
	}
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, hinted("set MUSTER_PASSWORD (it may be empty) or give --password-file", "a password is needed and there is no terminal to ask on")
	}
	state, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(cmd.ErrOrStderr(), prompt)
		p, err := interruptible(cmd.Context(), func() ([]byte, error) { return term.ReadPassword(fd) })
		if cmd.Context().Err() != nil {
			_ = term.Restore(fd, state) // the question stands unanswered, and has turned the echo off
		}
		fmt.Fprintln(cmd.ErrOrStderr())
		return p, err
	}
	first, err := ask("Password for the key: ")
	if err != nil || !confirm {
		return first, err
	}
	second, err := ask("The same again: ")
	if err != nil {
		return nil, err
	}
	if string(first) != string(second) {
		return nil, errors.New("the passwords differ")
	}
	return first, nil
}

// interruptible waits for an answer, but no longer than ctx: somebody who is asked must be able to leave by Ctrl-C.
func interruptible[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	got := make(chan answer, 1)
	go func() {
		value, err := read()
		got <- answer{value, err}
	}()
	select {
	case a := <-got:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// pemText answers a key's text: of a file, or out of the environment, where CI keeps secrets.
func pemText(v string) ([]byte, error) {
	if strings.HasPrefix(strings.TrimSpace(v), "-----BEGIN") {
		return []byte(v), nil
	}
	return os.ReadFile(v)
}

func openKey(cmd *cobra.Command, where, passwordFile string) (*bundles.KeySigner, error) {
	text, err := pemText(where)
	if err != nil {
		return nil, err
	}
	pass, err := password(cmd, passwordFile, false)
	if err != nil {
		return nil, err
	}
	k, err := bundles.LoadKey(text, pass)
	if err != nil && !strings.HasPrefix(strings.TrimSpace(where), "-----BEGIN") {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return k, err
}

// load opens the keys of the flags, of an environment variable, or those of the keys directory whose public
// half is among the wanted signers.
func (f *keyFlags) load(cmd *cobra.Command, env string, wanted []bundles.Signer) ([]*bundles.KeySigner, error) {
	places := f.keys
	if v := os.Getenv(env); len(places) == 0 && v != "" {
		places = []string{v}
	}
	if f.command != "" {
		return nil, nil // it signs instead
	}
	if len(places) == 0 {
		var err error
		if places, err = ownKeys(wanted); err != nil {
			return nil, err
		}
	}
	var out []*bundles.KeySigner
	for _, p := range places {
		k, err := openKey(cmd, p, f.passwordFile)
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

func ownKeys(wanted []bundles.Signer) ([]string, error) {
	dir, err := keysDir()
	if err != nil {
		return nil, err
	}
	pubs, err := filepath.Glob(filepath.Join(dir, "*.pub"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range pubs {
		text, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		id, err := bundles.PublicKeyID(text)
		if err != nil {
			continue // not every .pub is a signing key
		}
		for i := range wanted {
			if wanted[i].ID() == id {
				out = append(out, strings.TrimSuffix(p, ".pub")+".key")
			}
		}
	}
	return out, nil
}

// registerCommand is for the verbs that may be signed for by another tool.
func (f *keyFlags) registerCommand(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.command, "sign-command", "", "shell command that signs instead: it reads the file $MUSTER_DOCUMENT and writes a Sigstore bundle to $MUSTER_BUNDLE, as cosign sign-blob does")
	cmd.MarkFlagsMutuallyExclusive("sign-command", "key")
}

// external runs the command for a document; nil when there is none.
func (f *keyFlags) external(cmd *cobra.Command) bundles.SignFunc {
	if f.command == "" {
		return nil
	}
	return func(ctx context.Context, doc []byte) ([]byte, error) {
		dir, err := os.MkdirTemp("", "muster-sign-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		document, bundle := filepath.Join(dir, "release.json"), filepath.Join(dir, "bundle.json")
		if err := os.WriteFile(document, doc, 0o600); err != nil {
			return nil, err
		}
		run := exec.CommandContext(ctx, "sh", "-c", f.command)
		run.Env = append(os.Environ(), "MUSTER_DOCUMENT="+document, "MUSTER_BUNDLE="+bundle)
		run.Stdin, run.Stdout, run.Stderr = os.Stdin, cmd.ErrOrStderr(), cmd.ErrOrStderr()
		if err := run.Run(); err != nil {
			return nil, fmt.Errorf("--sign-command: %w", err)
		}
		data, err := os.ReadFile(bundle)
		if err != nil {
			return nil, hinted("the command writes its bundle to $MUSTER_BUNDLE", "--sign-command: %w", err)
		}
		return data, nil
	}
}
