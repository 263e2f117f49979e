// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/bundlestest"
)

func archive(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := bundles.WriteArchive(&out, files); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestArchivesAreTheSameBitForBit: whatever the order of the map, long names and empty files included.
func TestArchivesAreTheSameBitForBit(t *testing.T) {
	t.Parallel()
	files := maps.Clone(bundlestest.Files())
	files["empty.yaml"] = nil
	files[strings.Repeat("d/", 15)+strings.Repeat("n", 300)+".yaml"] = []byte("x")
	for i := range 200 {
		files[fmt.Sprintf("many/%d.yaml", i)] = bundlestest.Policy(fmt.Sprint("p", i))
	}
	first := archive(t, files)
	for range 5 {
		if !bytes.Equal(first, archive(t, maps.Clone(files))) {
			t.Fatal("the same files give other bytes")
		}
	}
	back, err := bundles.ReadArchive(bytes.NewReader(first), bundles.Payload)
	if err != nil || !maps.EqualFunc(files, back, bytes.Equal) {
		t.Errorf("%d of %d files: %v", len(back), len(files), err)
	}
}

func packed(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	tw := tar.NewWriter(zw)
	for _, h := range entries {
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(tw, zeros{}, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestHostileArchives(t *testing.T) {
	t.Parallel()
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1} }
	var many []tar.Header
	for i := range 22_000 {
		many = append(many, tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("f", i)})
	}
	good := packed(t, file("a.yaml"))
	for what, c := range map[string]struct {
		data []byte
		want string
	}{
		"the control":              {good, ""},
		"a symlink":                {packed(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/etc/shadow"}), "path"},
		"a hard link":              {packed(t, tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "b"}), "path"},
		"a device":                 {packed(t, tar.Header{Typeflag: tar.TypeChar, Name: "a"}), "path"},
		"a fifo":                   {packed(t, tar.Header{Typeflag: tar.TypeFifo, Name: "a"}), "path"},
		"a directory":              {packed(t, tar.Header{Typeflag: tar.TypeDir, Name: "a/"}), "path"},
		"out of it":                {packed(t, file("../a")), "path"},
		"absolute":                 {packed(t, file("/etc/a")), "path"},
		"unclean":                  {packed(t, file("a/./b")), "path"},
		"the documents' directory": {packed(t, file(".muster/release.json")), "path"},
		"doubled":                  {packed(t, file("a"), file("a")), "path"},
		"doubled after folding":    {packed(t, file("a"), file("A")), "path"},
		"not ASCII":                {packed(t, file("ä")), "path"},
		"too deep":                 {packed(t, file(strings.Repeat("d/", 17)+"a")), "limits"},
		"one huge file":            {packed(t, tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 9 << 20}), "limits"},
		"too many files":           {packed(t, many...), "limits"},
		"a bomb":                   {packed(t, tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 7 << 20}, tar.Header{Typeflag: tar.TypeReg, Name: "b", Size: 7 << 20}), "limits"},
		"more after it":            {append(bytes.Clone(good), 'x'), "malformed"},
		"another archive after it": {append(bytes.Clone(good), good...), "malformed"},
		"cut":                      {good[:len(good)-4], "malformed"},
		"no gzip":                  {[]byte("hello"), "malformed"},
		"nothing":                  {nil, "malformed"},
	} {
		_, err := bundles.ReadArchive(bytes.NewReader(c.data), bundles.Payload)
		if bundles.RefusalName(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

// FuzzArchive: whatever comes, what is accepted could have been written, and nothing panics or grows without bound.
func FuzzArchive(f *testing.F) {
	f.Add(archive(f, bundlestest.Files()))
	f.Add(archive(f, nil))
	f.Add(packed(f, tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "b"}))
	f.Add(packed(f, tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 100, PAXRecords: map[string]string{"a.b": "c"}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := bundles.ReadArchive(bytes.NewReader(data), bundles.Whole)
		if err != nil {
			if bundles.RefusalName(err) == "" {
				t.Fatalf("an error without a name: %v", err)
			}
			return
		}
		again, err := bundles.ReadArchive(bytes.NewReader(archive(t, files)), bundles.Whole)
		if err != nil || !maps.EqualFunc(files, again, bytes.Equal) {
			t.Fatalf("what was accepted does not come back: %v", err)
		}
	})
}
