// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"github.com/muster-fleet/muster/bundles/sshsig"
)

// ErrHostKey is the kind of error for a host key that cannot be used.
var ErrHostKey = errors.New("host key")

// HostKey is a host's own signing key. Beside the private key PATH may lie PATH-cert.pub, an OpenSSH
// certificate by an authority that hosts.allowed_signers names; signatures then carry it.
type HostKey struct {
	ssh.Signer
	path string
}

// LoadOrCreateHostKey reads the OpenSSH private key at path, or makes an ed25519 one at first start: complete
// and on disk before it has its name, readable by its owner only. The directory must exist.
func LoadOrCreateHostKey(path string) (*HostKey, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createHostKey(path); err != nil {
			return nil, err
		}
		return LoadHostKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHostKey, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s is readable by others (mode %04o); chmod 600 it, or enrol a new key if others may have read it",
			ErrHostKey, path, info.Mode().Perm())
	}
	return LoadHostKey(path)
}

// LoadHostKey reads a private key without passphrase in OpenSSH or PEM (PKCS#8, SEC 1) form.
func LoadHostKey(path string) (*HostKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHostKey, err)
	}
	signer, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrHostKey, path, err)
	}
	if err := sshsig.AcceptableKey(signer.PublicKey()); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrHostKey, path, err)
	}
	if signer, err = withCertificate(signer, path+"-cert.pub"); err != nil {
		return nil, err
	}
	return &HostKey{Signer: signer, path: path}, nil
}

// withCertificate attaches the certificate file when there is one.
func withCertificate(signer ssh.Signer, path string) (ssh.Signer, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return signer, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHostKey, err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrHostKey, path, err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok || !bytes.Equal(cert.Key.Marshal(), signer.PublicKey().Marshal()) {
		return nil, fmt.Errorf("%w: %s is not a certificate for this key", ErrHostKey, path)
	}
	out, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrHostKey, path, err)
	}
	return out, nil
}

func createHostKey(path string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHostKey, err)
	}
	block, err := ssh.MarshalPrivateKey(crypto.PrivateKey(private), "muster host key")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHostKey, err)
	}
	if err := writeFileDurably(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return fmt.Errorf("%w: %w", ErrHostKey, err)
	}
	return nil
}

// AllowedLine is the line that enrols this key under id in hosts.allowed_signers.
func (k *HostKey) AllowedLine(id string) string {
	return fmt.Sprintf("%s namespaces=%q %s\n", id, NamespaceReport+","+NamespaceRoll,
		bytes.TrimSpace(ssh.MarshalAuthorizedKey(sshsig.PlainKey(k.PublicKey()))))
}

// Fingerprint is the key's SHA256 fingerprint as ssh-keygen prints it.
func (k *HostKey) Fingerprint() string { return ssh.FingerprintSHA256(sshsig.PlainKey(k.PublicKey())) }

// writeFileDurably makes path hold b or what it held before, whatever happens in between.
func writeFileDurably(path string, b []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	if err = errors.Join(tmp.Chmod(mode), writeAndSync(tmp, b), tmp.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeAndSync(f *os.File, b []byte) error {
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}
