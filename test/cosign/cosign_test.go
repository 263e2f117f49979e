// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

// tool is one version of cosign with the flags that make and check a keyed bundle offline.
type tool struct {
	name, module, pkg string
	sign, verify      []string
	path              string
	logKey            string // a file with the log's public key, where there is one
}

// tools are the versions. The versions of the modules are pinned in test/tools.
func tools() []*tool {
	verify := []string{"--new-bundle-format", "--insecure-ignore-tlog", "--trusted-root"}
	return []*tool{
		{
			name: "v2", module: "cosign2", pkg: "github.com/sigstore/cosign/v2/cmd/cosign",
			sign: []string{"--tlog-upload=false", "--new-bundle-format"}, verify: verify,
		},
		{
			name: "v3", module: "cosign3", pkg: "github.com/sigstore/cosign/v3/cmd/cosign",
			sign: []string{"--use-signing-config=false", "--tlog-upload=false"}, verify: verify,
		},
	}
}

// forEach runs a test with each of the tools, built.
func forEach(t *testing.T, test func(t *testing.T, c *tool)) {
	t.Helper()
	for _, c := range tools() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.build(t)
			test(t, c)
		})
	}
}

// build builds the command once and keeps it, named after its pinned version.
func (c *tool) build(t *testing.T) {
	t.Helper()
	dir := filepath.Join("..", "tools", c.module)
	version := goOutput(t, dir, "list", "-m", "-f", "{{.Version}}", strings.TrimSuffix(c.pkg, "/cmd/cosign"))
	cache := os.Getenv("MUSTER_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(base, "muster")
	}
	c.path = filepath.Join(cache, "tools", c.module+"-"+version)
	if _, err := os.Stat(c.path); err == nil {
		return
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o755); err != nil {
		t.Fatal(err)
	}
	// Aside and renamed: two test runs at once must not execute half a file.
	aside := fmt.Sprintf("%s.%d", c.path, os.Getpid())
	start := time.Now()
	goOutput(t, dir, "build", "-o", aside, c.pkg)
	if err := os.Rename(aside, c.path); err != nil {
		t.Fatal(err)
	}
	t.Logf("built cosign %s in %s", version, time.Since(start).Round(time.Second))
}

func goOutput(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return strings.TrimSpace(string(out))
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("go %s in %s: %v\n%s", strings.Join(args, " "), dir, err, stderr.String())
	}
	t.Skipf("cosign cannot be built here: go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	return ""
}

// run runs cosign without network, home or terminal.
func (c *tool) run(t *testing.T, dir string, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.path, args...)
	cmd.Dir = dir
	cmd.Env = []string{"COSIGN_PASSWORD=secret", "SIGSTORE_REKOR_PUBLIC_KEY=" + c.logKey, "HOME=" + dir, "TUF_ROOT=" + filepath.Join(dir, "tuf"), "https_proxy=http://127.0.0.1:1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("cosign %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (c *tool) signBlob(t *testing.T, dir, key string) error {
	t.Helper()
	return c.run(t, dir, append(append([]string{"sign-blob", "--yes", "--key", key}, c.sign...), "--bundle", "bundle.json", "release.json")...)
}

func (c *tool) verifyBlob(t *testing.T, dir string) error {
	t.Helper()
	return c.run(t, dir, append(append([]string{"verify-blob", "--key", "cosign.pub"}, c.verify...), "empty.json", "--bundle", "bundle.json", "release.json")...)
}

// workshop is a directory with a key in cosign's files and a release document.
type workshop struct {
	dir  string
	key  *bundles.KeySigner
	doc  []byte
	tool *tool
	// trusts is a keyless signer that the shelf's hosts trust besides, as one entry of the list.
	trusts string
}

func newWorkshop(t *testing.T, c *tool, private, public []byte) *workshop {
	t.Helper()
	w := &workshop{dir: t.TempDir(), tool: c}
	if private != nil {
		var err error
		if w.key, err = bundles.LoadKey(private, []byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	w.doc = (&bundlestest.Fleet{}).Doc(t, bundlestest.Files(), 1)
	w.write(t, "cosign.key", private)
	w.write(t, "cosign.pub", public)
	w.write(t, "release.json", w.doc)
	w.write(t, "empty.json", []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`))
	return w
}

func (w *workshop) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *workshop) read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// host verifies the document with this bundle as a host does.
func (w *workshop) host(t *testing.T, bundle []byte) error {
	t.Helper()
	f := &bundlestest.Fleet{Keys: map[string]*bundles.KeySigner{"alice": w.key}}
	files := f.Sign(t, bundlestest.Files(), w.doc)
	files[bundles.SignatureFile("alice")] = bundle
	_, err := bundles.Verify(bundlestest.Raw(files), f.Trust(t, 1, 1, ""), bundles.Seen{}, bundlestest.Now())
	return err
}

func musterKey(t *testing.T) (private, public []byte) {
	t.Helper()
	pair, err := bundles.GenerateKey([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return pair.Private, pair.Public
}

func (c *tool) cosignKey(t *testing.T) (private, public []byte) {
	t.Helper()
	dir := t.TempDir()
	if err := c.run(t, dir, "generate-key-pair"); err != nil {
		t.Fatal(err)
	}
	w := &workshop{dir: dir}
	return w.read(t, "cosign.key"), w.read(t, "cosign.pub")
}

// TestBothDirections: keys of either tool, signatures of either tool, verified by either tool.
func TestBothDirections(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, c *tool) {
		mp, mb := musterKey(t)
		cp, cb := c.cosignKey(t)
		for _, key := range []struct {
			name            string
			private, public []byte
		}{{"key of muster", mp, mb}, {"key of cosign", cp, cb}} {
			w := newWorkshop(t, c, key.private, key.public)
			if err := c.signBlob(t, w.dir, "cosign.key"); err != nil {
				t.Fatal(err)
			}
			theirs := w.read(t, "bundle.json")
			if err := w.host(t, theirs); err != nil {
				t.Errorf("%s: signed by cosign, verified by muster: %v\n%s", key.name, err, theirs)
			}
			if err := c.verifyBlob(t, w.dir); err != nil {
				t.Errorf("%s: signed and verified by cosign: %v", key.name, err)
			}
			ours, err := w.key.Sign(t.Context(), w.doc)
			if err != nil {
				t.Fatal(err)
			}
			w.write(t, "bundle.json", ours)
			if err := c.verifyBlob(t, w.dir); err != nil {
				t.Errorf("%s: signed by muster, verified by cosign: %v\n%s", key.name, err, ours)
			}
			w.write(t, "release.json", append(w.doc, ' '))
			if err := c.verifyBlob(t, w.dir); err == nil {
				t.Errorf("%s: cosign verifies an altered document", key.name)
			}
		}
	})
}

// TestRSA: a key that openssl or a token makes, imported by cosign.
func TestRSA(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("openssl is not installed")
	}
	forEach(t, func(t *testing.T, c *tool) {
		dir := t.TempDir()
		gen := exec.CommandContext(t.Context(), openssl, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", "rsa.pem")
		gen.Dir = dir
		if out, err := gen.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := c.run(t, dir, "import-key-pair", "--key", "rsa.pem"); err != nil {
			t.Fatal(err)
		}
		files := &workshop{dir: dir}
		w := newWorkshop(t, c, files.read(t, "import-cosign.key"), files.read(t, "import-cosign.pub"))
		if err := c.signBlob(t, w.dir, "cosign.key"); err != nil {
			t.Fatal(err)
		}
		if err := w.host(t, w.read(t, "bundle.json")); err != nil {
			t.Errorf("signed by cosign, verified by muster: %v", err)
		}
		ours, err := w.key.Sign(t.Context(), w.doc)
		if err != nil {
			t.Fatal(err)
		}
		w.write(t, "bundle.json", ours)
		if err := c.verifyBlob(t, w.dir); err != nil {
			t.Errorf("signed by muster, verified by cosign: %v", err)
		}
	})
}

// TestRefusedShapes: the real tools' other outputs get their names.
func TestRefusedShapes(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, c *tool) {
		private, public := musterKey(t)
		w := newWorkshop(t, c, private, public)
		legacy := []string{"sign-blob", "--yes", "--key", "cosign.key", "--tlog-upload=false", "--bundle", "legacy.json", "release.json"}
		if c.name == "v3" {
			legacy = append(legacy[:4:4], append([]string{"--use-signing-config=false", "--new-bundle-format=false"}, legacy[4:]...)...)
		}
		if err := c.run(t, w.dir, legacy...); err != nil {
			t.Fatal(err)
		}
		if err := w.host(t, w.read(t, "legacy.json")); bundles.RefusalName(err) != "legacy-bundle" {
			t.Errorf("a legacy bundle: %v", err)
		}
		w.write(t, "predicate.json", []byte("{}"))
		attest := []string{"attest-blob", "--yes", "--key", "cosign.key", "--tlog-upload=false", "--predicate", "predicate.json", "--type", "custom", "--bundle", "dsse.json"}
		if c.name == "v3" {
			attest = append(attest, "--use-signing-config=false")
		}
		if err := c.run(t, w.dir, append(attest, "--new-bundle-format", "release.json")...); err != nil {
			t.Fatal(err)
		}
		if err := w.host(t, w.read(t, "dsse.json")); bundles.RefusalName(err) != "dsse" {
			t.Errorf("an attestation: %v", err)
		}
	})
}
