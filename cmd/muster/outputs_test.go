// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/bundles"
	"github.com/muster-fleet/muster/bundles/scaffold"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/reconciler/control"
	"github.com/muster-fleet/muster/reconciler/events"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	commandsPage = "../../docs/commands.md"
	schemaDir    = "../../docs/schema/cli"
)

// outputs is what each verb prints with -o json; two verbs may print the same.
var outputs = map[string]struct {
	schema string
	value  any
	note   string
}{
	"muster approve":         {"published", bundles.Published{}, "With `--plan`: [review](schema/cli/review.json)."},
	"muster bundle export":   {"carried", carried{}, ""},
	"muster bundle import":   {"carried", carried{}, ""},
	"muster drift":           {"drift", driftResult{}, ""},
	"muster explain":         {"explain", explainResult{}, ""},
	"muster fleet collect":   {"collect", collectResult{}, "With `--every` one such document after another."},
	"muster init":            {"init", []scaffold.Written{}, ""},
	"muster join":            {"join", joined{}, ""},
	"muster keys new":        {"key", newKey{}, ""},
	"muster lint":            {"lint", []finding{}, ""},
	"muster logs":            {"event", events.Record{}, "One such document a line."},
	"muster plan":            {"plan", control.Plan{}, ""},
	"muster promote":         {"promote", promotion{}, ""},
	"muster publish":         {"publish", publishResult{}, ""},
	"muster pull":            {"carried", carried{}, ""},
	"muster resume":          {"resume", resumeResult{}, ""},
	"muster roll":            {"roll", rollResult{}, ""},
	"muster status":          {"status", control.Status{}, ""},
	"muster stand-down":      {"stand-down", control.StandDown{}, ""},
	"muster stand-down sign": {"stand-down-sign", signedStandDown{}, ""},
	"muster suspend":         {"suspension", control.Suspension{}, ""},
	"muster sync":            {"sync", control.SyncResult{}, ""},
	"muster trust check":     {"trust", trustView{}, ""},
	"muster trust next":      {"trust-next", trustNext{}, ""},
	"muster trust show":      {"trust", trustView{}, ""},
	"muster verify":          {"verify", verifyResult{}, ""},
}

// verbs lists the commands that do something.
func verbs() []*cobra.Command {
	var all []*cobra.Command
	var look func(*cobra.Command)
	look = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			look(sub)
		}
		if !cmd.HasSubCommands() || cmd.Flags().ShorthandLookup("o") != nil {
			all = append(all, cmd)
		}
	}
	look(newRootCmd())
	return all
}

// Every verb says what it does, how it is called, and answers in JSON of a known shape; what schema prints is JSON itself.
func TestEveryVerb(t *testing.T) {
	t.Parallel()
	known := 0
	for _, cmd := range verbs() {
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
			t.Errorf("%s has no Short, Long or Example", cmd.CommandPath())
		}
		_, listed := outputs[cmd.CommandPath()]
		if printsJSON := cmd.Flags().ShorthandLookup("o") != nil; printsJSON != listed {
			t.Errorf("%s: -o %v, its output listed %v", cmd.CommandPath(), printsJSON, listed)
		}
		if listed {
			known++
		}
	}
	if known != len(outputs) {
		t.Errorf("%d of %d listed verbs exist", known, len(outputs))
	}
}

// The page of commands and the schemas of their output are made from the program. Scripts rely on them: a field may
// be added, none may go or change its meaning.
func TestCommandsPage(t *testing.T) {
	t.Parallel()
	golden(t, commandsPage, commandsText())
	reflector := &jsonschema.Reflector{Anonymous: true, Mapper: ownEncoding}
	values := map[string]any{"review": bundles.Review{}}
	for _, o := range outputs {
		values[o.schema] = o.value
	}
	for name, value := range values {
		s := reflector.Reflect(value)
		s.ID = jsonschema.ID("https://muster.dev/cli/" + name + ".json")
		text, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, filepath.Join(schemaDir, name+".json"), append(text, '\n'))
	}
	files, err := os.ReadDir(schemaDir)
	if err != nil || len(files) != len(values) {
		t.Errorf("%d schemas in %s, %d outputs (%v)", len(files), schemaDir, len(values), err)
	}
}

// ownEncoding is the schema of what writes its JSON itself, which reflection cannot see.
func ownEncoding(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[enforce.Verdict]():
		return &jsonschema.Schema{Type: "string", Enum: []any{enforce.Permit.String(), enforce.Deny.String()}}
	case reflect.TypeFor[bundles.Verified](), reflect.TypeFor[*bundles.Verified]():
		return &jsonschema.Schema{
			Description: "A release with the evidence for it, or null.",
			OneOf: []*jsonschema.Schema{
				{Type: "null"},
				{Type: "object", Required: []string{"revision", "digest", "level", "signers", "release", "checks", "conditions"}},
			},
		}
	}
	return nil
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the program gives (%v): make generate", file, err)
	}
}

func commandsText() []byte {
	var b bytes.Buffer
	b.WriteString("# The commands of muster\n\nMade from the program by `make generate`; " +
		"`muster VERB --help` has the flags too.\n\n" +
		"stdout is data: a table, or with `-o json` a document whose schema is linked here. Of these a field may be added; none goes\n" +
		"or changes its meaning. Errors, warnings and progress are on stderr (`muster: error:`, `muster: hint:`). The exit code is 0\n" +
		"when all went well, 1 when not, and 130 when a signal ended it. `muster completion bash` (zsh, fish, powershell) makes the\n" +
		"shell complete verbs, flags, and the names of policies and revisions.\n")
	for _, cmd := range verbs() {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n    %s\n\n", cmd.CommandPath(), cmd.Short, cmd.UseLine())
		if cmd.Long != cmd.Short {
			b.WriteString(strings.TrimSpace(cmd.Long) + "\n\n")
		}
		for line := range strings.Lines(cmd.Example) {
			b.WriteString("    " + strings.TrimSpace(line) + "\n")
		}
		if o, listed := outputs[cmd.CommandPath()]; listed {
			fmt.Fprintf(&b, "\n`-o json`: [%[1]s](schema/cli/%[1]s.json). %s\n", o.schema, o.note)
		}
	}
	return bytes.ReplaceAll(b.Bytes(), []byte(". \n"), []byte(".\n"))
}

// The shell is offered the names of what there is.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"promote", "--policies", starter, ""}, "package-managers"},
		{[]string{"logs", "--operation", ""}, "Process"},
		{[]string{"logs", "--policy", ""}, ""},
		{[]string{"plan", "--repo", "../..", "--ref", ""}, "HEAD"},
		{[]string{"publish", "--dir", "../..", ""}, "HEAD"},
		{[]string{"explain", ""}, "exec"},
		{[]string{"status", "-o", ""}, "json"},
		{[]string{"schema", ""}, "KubeArmorHostPolicy"},
	} {
		out, err := runMuster(t, append([]string{"__complete"}, c.args...)...)
		if err != nil || c.want != "" && !strings.Contains("\n"+out, "\n"+c.want+"\n") || !strings.Contains(out, ":4\n") {
			t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
}
