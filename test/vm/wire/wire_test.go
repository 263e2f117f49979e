// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestFramesComeBack(t *testing.T) {
	t.Parallel()
	var port bytes.Buffer
	w := NewWriter(&port)
	long := bytes.Repeat([]byte("x"), MaxPayload+1)
	if _, err := w.Stream(7, KindOut).Write(long); err != nil {
		t.Fatal(err)
	}
	if err := w.SendJSON(8, KindExit, Exit{Code: 3}); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for range 2 {
		f, err := Read(&port)
		if err != nil || f.Stream != 7 || f.Kind != KindOut {
			t.Fatalf("got %+v, %v", f, err)
		}
		got = append(got, f.Payload...)
	}
	if !bytes.Equal(got, long) {
		t.Errorf("%d bytes came back", len(got))
	}
	if f, err := Read(&port); err != nil || f.Kind != KindExit || string(f.Payload) != `{"code":3}` {
		t.Errorf("got %+v, %v", f, err)
	}
	if _, err := Read(&port); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if _, err := Read(bytes.NewReader([]byte{0, 0, 0, 0, 1, 255, 255, 255, 255})); !errors.Is(err, ErrFrame) {
		t.Errorf("an endless frame: %v", err)
	}
}

func TestQueueNeverWaits(t *testing.T) {
	t.Parallel()
	q := NewQueue()
	q.Push([]byte("a"))
	q.Push([]byte("bc"))
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(q); err != nil || string(got) != "abc" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTreesComeBack(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "d/e"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "d/e/f"), []byte("content"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("e/f", filepath.Join(from, "d/link")); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	if err := errors.Join(Pack(tw, from, "/x/../../y"), tw.Close()); err != nil {
		t.Fatal(err)
	}
	if err := Unpack(&archive, to); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(to, "y/d/link")
	got, err := os.ReadFile(path)
	if err != nil || string(got) != "content" {
		t.Errorf("got %q, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
}
