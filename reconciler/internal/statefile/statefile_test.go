// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

type value struct {
	Word string `json:"word"`
	List []int  `json:"list"`
}

// TestTornAtEveryByte: a file that ends early, or has one bit wrong, is known to be torn.
func TestTornAtEveryByte(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	want := value{"hello", []int{1, 2, 3}}
	if err := Save(path, "magic/1", want); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got value
	if err := Load(path, "magic/1", &got); err != nil || got.Word != want.Word || len(got.List) != 3 {
		t.Fatalf("%+v %v", got, err)
	}
	broken := make([][]byte, 0, 2*len(whole))
	for n := range whole {
		flipped := append([]byte{}, whole...)
		flipped[n] ^= 1
		broken = append(broken, whole[:n], flipped)
	}
	for i, content := range append(broken, append(append([]byte{}, whole...), 'x')) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Load(path, "magic/1", &value{}); !errors.Is(err, ErrTorn) {
			t.Fatalf("%d: %v: %q", i, err, content)
		}
	}
}

func TestOtherFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	if err := Load(path, "magic/1", &value{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := Save(path, "other/1", value{}); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, "magic/1", &value{}); !errors.Is(err, ErrTorn) {
		t.Error(err)
	}
	if err := Save(path, "magic/1", map[string]string{"unknown": "field"}); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, "magic/1", &value{}); !errors.Is(err, ErrTorn) {
		t.Error(err)
	}
}
