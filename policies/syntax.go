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

// syntaxError says where the text stops being YAML. The library's own line is the start of what it was
// reading, often many lines too early, and it tells no column; so the text is fed to it again line by line,
// and the line it stopped at is the place.
func syntaxError(data []byte, err error) (*yaml.Node, string) {
	reason := strings.TrimPrefix(err.Error(), "yaml: ")
	said := 0
	if m := yamlMessage.FindStringSubmatch(err.Error()); m != nil {
		reason = m[2]
		said, _ = strconv.Atoi(m[1])
		if strings.HasPrefix(reason, "did not find expected") && said > 0 {
			said++ // the parser, unlike the scanner, counts from 0
		}
	}
	feed := &lineFeed{data: data}
	decoder := yaml.NewDecoder(feed)
	for {
		var n yaml.Node
		if decoder.Decode(&n) != nil {
			break
		}
	}
	line := feed.lines
	if feed.ended && said > 0 {
		line = said // it read to the end in search of a close; the opening is the place
	}
	return placeOf(data, line), reason
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

// lineFeed is a reader that hands out one line at a time and remembers how many it handed out.
type lineFeed struct {
	data  []byte
	lines int
	ended bool
}

// Read implements io.Reader.
func (f *lineFeed) Read(p []byte) (int, error) {
	if len(f.data) == 0 {
		f.ended = true
		return 0, io.EOF
	}
	n := bytes.IndexByte(f.data, '\n') + 1
	if n == 0 || n > len(p) {
		n = min(len(f.data), len(p))
	}
	copy(p, f.data[:n])
	if f.data[n-1] == '\n' || n == len(f.data) {
		f.lines++
	}
	f.data = f.data[n:]
	return n, nil
}
