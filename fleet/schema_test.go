// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/invopop/jsonschema"
)

var update = flag.Bool("update", false, "write the golden files")

// The published schemas are made from the Go types, and equal what is committed.
func TestSchemas(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file, title string
		value       any
		hint        string
	}{
		{"../docs/schema/report.json", "Muster report", &Report{}, ReportSchema},
		{"../docs/schema/roll.json", "Muster roll", &Roll{}, RollSchema},
	} {
		r := &jsonschema.Reflector{Anonymous: true}
		s := r.Reflect(c.value)
		s.Title, s.ID = c.title, jsonschema.ID("https://"+c.hint+".json")
		got, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		if *update {
			if err := os.MkdirAll(filepath.Dir(c.file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(c.file, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(c.file)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the Go type gives (%v): run go generate ./fleet", c.file, err)
		}
	}
}

// What has no meaning must not look as if it had.
func TestZeroValues(t *testing.T) {
	t.Parallel()
	if _, err := Encode(Report{}); err == nil {
		t.Error("the zero report encodes")
	}
	if !NextSlot("a", 0, testNow).Equal(testNow) || age(testNow, testNow.Add(time.Hour)) != "0s" {
		t.Error("degenerate times")
	}
}
