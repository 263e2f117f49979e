// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"bytes"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

var yamlMessage = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntaxError says where the text stops being YAML. The library tells a line, never a column. The line is
// right when a character is at fault. When a token is, it is the start of the collection around it, often
// many lines too early: then the text is fed again byte by byte, and the place is where the reader stopped.
func syntaxError(data []byte, err error) (*yaml.Node, string) {
	reason, line := saidBy(err)
	switch {
	case strings.HasPrefix(reason, "unknown anchor '"):
		name, _, _ := strings.Cut(strings.TrimPrefix(reason, "unknown anchor '"), "'")
		before, _, _ := bytes.Cut(data, []byte("*"+name))
		line = bytes.Count(before, []byte("\n")) + 1
	case strings.HasPrefix(reason, "found a tab"):
		at, _ := stop(data)
		line = bytes.Count(data[:at-1], []byte("\n")) + 1
	case strings.HasPrefix(reason, "did not find expected"):
		at, ended := stop(data)
		if ended {
			line++ // never closed: the place is where it opened, which the library counts from 0 here
			break
		}
		line = bytes.Count(data[:at-1], []byte("\n")) + 1
		// To see that a token ends, the reader goes on to the next one, which may be on another line. The
		// fault is before that line when it is there without it, too.
		above := bytes.Join(bytes.SplitAfter(data, []byte("\n"))[:line-1], nil)
		var n yaml.Node
		if err := yaml.Unmarshal(above, &n); err != nil {
			if again, _ := saidBy(err); again == reason {
				line--
			}
		}
	}
	return placeOf(data, line), reason
}

// syntaxHints are what to do about the YAML reader's reasons, by how these begin.
var syntaxHints = []struct{ reason, hint string }{
	{"unknown anchor", "write the value out: aliases are not accepted in policies"},
	{"found a tab", "indent with spaces"},
	{"found character that cannot start", "indent with spaces, and quote text that begins with @, `, % or a tab"},
	{"mapping values are not allowed", "quote text that holds a colon and a space, and give the fields of one mapping the same indentation"},
	{"could not find expected ':'", "write FIELD: VALUE, with a space after the colon"},
	{"found unexpected end of stream", "close the quote"},
	{"did not find expected", "look for a bracket, brace or quote that is not closed, and for a line that is indented otherwise than its neighbours"},
}

// syntaxHint says what to do about a syntax error.
func syntaxHint(reason string) string {
	for _, known := range syntaxHints {
		if strings.HasPrefix(reason, known.reason) {
			return known.hint
		}
	}
	return "compare this line with its neighbours: indentation, quotes, brackets"
}

// saidBy is the reason and the line of an error of the library; it leaves the first line out.
func saidBy(err error) (reason string, line int) {
	m := yamlMessage.FindStringSubmatch(err.Error())
	if m == nil {
		return strings.TrimPrefix(err.Error(), "yaml: "), 1
	}
	line, atoiErr := strconv.Atoi(m[1])
	if atoiErr != nil {
		line = 1
	}
	return m[2], line
}

// stop says how many bytes the YAML reader takes before it fails, at least one, and whether it saw the end.
func stop(data []byte) (at int, ended bool) {
	feed := &byteFeed{data: data}
	decoder := yaml.NewDecoder(feed)
	for {
		var n yaml.Node
		if decoder.Decode(&n) != nil {
			return max(1, feed.at), feed.ended
		}
	}
}

// placeOf is the first character of a line that is not blank, or of the last line before it that has one.
func placeOf(data []byte, line int) *yaml.Node {
	lines := bytes.SplitAfter(data, []byte("\n"))
	line = max(1, min(line, len(lines)))
	for line > 1 && len(bytes.TrimSpace(lines[line-1])) == 0 {
		line--
	}
	text := lines[line-1]
	indent := len(text) - len(bytes.TrimLeft(text, " \t"))
	return &yaml.Node{Line: line, Column: utf8.RuneCount(text[:indent]) + 1}
}

// byteFeed is a reader that hands out one byte at a time and remembers how many it handed out.
type byteFeed struct {
	data  []byte
	at    int
	ended bool
}

// Read implements io.Reader.
func (f *byteFeed) Read(p []byte) (int, error) {
	if f.at == len(f.data) {
		f.ended = true
		return 0, io.EOF
	}
	p[0] = f.data[f.at]
	f.at++
	return 1, nil
}
