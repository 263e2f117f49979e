// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"testing"
	"testing/fstest"
)

func TestUnsupported(t *testing.T) {
	t.Parallel()
	file := &fstest.MapFile{Data: []byte("x: y\n")}
	found, err := UnsupportedIn(fstest.MapFS{
		"rollout.yaml": file, "waivers/a.yaml": file, "waivers/sub/README.md": file,
		"a.yaml": file, "sub/rollout.yaml": file, "sub/waivers/a.yaml": file, "waiver.yaml": file, "rollout.md": file,
	})
	if err != nil {
		t.Fatal(err)
	}
	var places []string
	for _, p := range found {
		places = append(places, p.Position.String())
	}
	if have, want := fmt.Sprint(places), "[rollout.yaml:1:1 waivers/a.yaml:1:1 waivers/sub/README.md:1:1]"; have != want {
		t.Errorf("%s, want %s", have, want)
	}
	hinted(t, found)
	for _, fsys := range []fstest.MapFS{{}, {"waivers": file}} {
		if found, err := UnsupportedIn(fsys); len(found) != 0 || err != nil {
			t.Errorf("%v: %v, %v", fsys, found, err)
		}
	}
}
