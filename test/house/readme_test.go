// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestReadmeIsPlayed: what the README tells people to type on a real host is typed by a test with the same words. The block
// of set-up is played on real kernels, by the demo or under systemd; the verbs of the text below it there or in a story of
// the agent.
func TestReadmeIsPlayed(t *testing.T) {
	t.Parallel()
	root, files := repository(t)
	page, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## On a real host\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, rest, _ := strings.Cut(section, "```\n")
	block, text, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("the README has no block of commands for a real host")
	}
	inLab := typedInLab(files)
	anywhere := slices.Concat(inLab, typedInStories(t, root))
	commands := blockCommands(block)
	if len(commands) < 4 || !slices.Contains(commands, "muster publish") {
		t.Fatalf("commands of the block: %q", commands)
	}
	for _, command := range commands {
		if !typed(command, inLab) {
			t.Errorf("the README's %q is typed neither by test/demo/story.go nor by test/service", command)
		}
	}
	spans := textCommands(text)
	if len(spans) < 5 || !slices.Contains(spans, "muster logs -f") {
		t.Fatalf("commands of the text: %q", spans)
	}
	for _, command := range spans {
		if !typed(command, anywhere) {
			t.Errorf("the README's %q is typed by no test", command)
		}
	}
}

// blockCommands are the verbs of muster in a block: without sudo, without the comment.
func blockCommands(block string) []string {
	var commands []string
	for line := range strings.Lines(block) {
		line, _, _ = strings.Cut(line, " # ")
		for command := range strings.SplitSeq(line, "&&") {
			command = strings.TrimPrefix(strings.TrimSpace(command), "sudo ")
			if strings.HasPrefix(command, "muster ") {
				commands = append(commands, command)
			}
		}
	}
	return commands
}

var span = regexp.MustCompile("`(muster [^`]*)`")

func textCommands(text string) []string {
	var commands []string
	for _, found := range span.FindAllStringSubmatch(text, -1) {
		commands = append(commands, found[1])
	}
	return commands
}

var placeholder = regexp.MustCompile(`\b(STATUS-URL|URL|SUM)\b`)

// typed says whether some line holds the command, with anything in the place of what is in capitals, and after it.
func typed(command string, lines []string) bool {
	pattern := placeholder.ReplaceAllString(regexp.QuoteMeta(command), `\S+`)
	expression := regexp.MustCompile(`(^|[\s;&(])` + pattern + `($|[\s;&)])`)
	return slices.ContainsFunc(lines, expression.MatchString)
}

// typedInLab are the command lines of the demo and of the test under systemd. The demo's other texts speak of commands, and
// are left out.
func typedInLab(files []File) []string {
	var lines []string
	for _, file := range files {
		demo, service := file.Path == "test/demo/story.go", strings.HasPrefix(file.Path, "test/service/")
		if !demo && !service {
			continue
		}
		ast.Inspect(file.AST, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.KeyValueExpr:
				if key, ok := node.Key.(*ast.Ident); demo && ok && key.Name == "command" {
					lines = append(lines, literal(node.Value)...)
				}
			case *ast.BasicLit:
				if service {
					lines = append(lines, literal(node)...)
				}
			}
			return true
		})
	}
	return lines
}

func literal(expr ast.Expr) []string {
	lit, ok := expr.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return nil
	}
	text, err := strconv.Unquote(lit.Value)
	if err != nil {
		return nil
	}
	return strings.Split(text, "\n")
}

// typedInStories are the lines by which the agent's stories run commands.
func typedInStories(t *testing.T, root string) []string {
	t.Helper()
	var lines []string
	for _, story := range sources(t, root, func(path string) bool {
		return strings.HasPrefix(path, "test/agent/testdata/scripts/") && filepath.Ext(path) == ".txtar"
	}) {
		for line := range strings.Lines(string(story)) {
			if strings.HasPrefix(strings.TrimPrefix(line, "! "), "exec ") {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	return lines
}
