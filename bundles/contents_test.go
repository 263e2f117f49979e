// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"errors"
	"strings"
	"testing"
)

// TestContents: a new release that asks for what this version does not do is refused with its file and a hint. One that an
// earlier version accepted goes on being held: an upgrade takes no enforcement away.
func TestContents(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{"rollout.yaml": "no waves", "waivers/web.yaml": "no waivers", "a.yaml": "", "sub/rollout.yaml": ""} {
		for _, held := range []bool{false, true} {
			e := &examination{held: held, v: &Verified{release: Release{Files: []ReleaseFile{{Path: "0.yaml"}, {Path: path}}}}}
			_, err := e.checkContents()
			if want == "" || held {
				if err != nil {
					t.Errorf("%s, held %v: %v", path, held, err)
				}
				continue
			}
			r, ok := errors.AsType[*Refusal](err)
			if !ok || !errors.Is(err, ErrUnsupported) || !strings.HasPrefix(r.Error(), "unsupported: "+path+": ") || !strings.Contains(r.Error(), want) || r.Hint() == "" {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}
