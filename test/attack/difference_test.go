// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/muster-fleet/muster/bundles/bundlestest"
	"github.com/muster-fleet/muster/reconciler/control"
)

// TestDamagedCacheUnderARunningHost: of a next release a host takes what did not change from its cache. When somebody
// altered that, nothing of it comes into force; the host fetches everything at the next look and goes on.
func TestDamagedCacheUnderARunningHost(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"git", "oci"} {
		for name, harm := range map[string]func(w *world, path string, data []byte){
			"altered": func(w *world, path string, data []byte) {
				data[len(data)-2] ^= 1
				w.must(os.WriteFile(path, data, 0o600))
			},
			"cut":  func(w *world, path string, data []byte) { w.must(os.WriteFile(path, data[:len(data)-1], 0o600)) },
			"gone": func(w *world, path string, _ []byte) { w.must(os.Remove(path)) },
			"well": func(*world, string, []byte) {},
		} {
			t.Run(transport+" "+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, transport)
				same := map[string][]byte{"same.yaml": bundlestest.Policy("same")}
				next := func() map[string][]byte {
					files := right(w.sequence)
					maps.Copy(files, same)
					return w.release(files, w.sequence, w.sign...)
				}
				w.push(next())
				w.start()
				if got := w.sync(false); got.Outcome != control.OutcomeEnforced {
					t.Fatalf("the first: %+v", got)
				}
				paths, err := filepath.Glob(filepath.Join(w.state(), "cache", "*.release"))
				if err != nil || len(paths) != 1 {
					t.Fatal(paths, err)
				}
				data, err := os.ReadFile(paths[0])
				w.must(err)
				harm(w, paths[0], data)

				before := w.sequence
				w.sequence++
				w.push(next())
				got := w.sync(false)
				if name == "well" {
					if err := w.inForce(); err != nil {
						t.Fatalf("control: %v", err)
					}
					return
				}
				w.sequence = before
				if err := w.inForce(); err != nil || got.Outcome == control.OutcomeEnforced || !contains(conditions(got.Report), "Trouble/torn") {
					t.Errorf("after the harm: %s %v, %v", got.Outcome, conditions(got.Report), err)
				}
				w.sequence++
				got = w.sync(false)
				if err := w.inForce(); err != nil || got.Outcome != control.OutcomeEnforced || contains(conditions(got.Report), "Trouble/torn") {
					t.Errorf("at the next look: %s %v, %v", got.Outcome, conditions(got.Report), err)
				}
			})
		}
	}
}
