// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strconv"
	"unicode/utf8"
)

// Digest is "sha256:" and the hexadecimal SHA-256 of the ruleset as canonical JSON (RFC 8785).
//
// It covers what the kernel does and what its events say. It leaves out where a rule stands in its file,
// so that a moved comment changes nothing in any kernel, and the wording of Held, whose effect is Mode.
func (rs *Ruleset) Digest() string {
	w := canonicalWriter{hash: sha256.New()}
	w.ruleset(rs)
	w.flush(0)
	return "sha256:" + hex.EncodeToString(w.hash.Sum(nil))
}

// canonicalWriter writes canonical JSON into a hash. Members are written in the order that RFC 8785 asks
// for (by name), and those with a zero value are left out; a test compares it with an implementation of
// that RFC. encoding/json would cost ten times as much, at every round of the reconciler.
type canonicalWriter struct {
	hash  hash.Hash
	buf   []byte
	comma bool
}

// flush hands over what is buffered, once it is more than limit bytes.
func (w *canonicalWriter) flush(limit int) {
	if len(w.buf) > limit {
		w.hash.Write(w.buf) // a hash.Hash never returns an error
		w.buf = w.buf[:0]
	}
}

func (w *canonicalWriter) ruleset(rs *Ruleset) {
	w.open('{')
	w.text("mode", string(rs.Mode))
	w.key("postures")
	w.open('{')
	w.text("capabilities", string(rs.Postures.Capabilities))
	w.text("file", string(rs.Postures.File))
	w.text("network", string(rs.Postures.Network))
	w.close('}')
	w.key("rules")
	w.open('[')
	for i := range rs.Rules {
		w.rule(&rs.Rules[i])
		w.flush(1 << 15)
	}
	w.close(']')
	w.text("subject", string(rs.Subject))
	if len(rs.Visible) > 0 {
		w.key("visible")
		w.open('[')
		for _, class := range rs.Visible {
			w.element()
			w.quote(string(class))
		}
		w.close(']')
	}
	w.close('}')
}

func (w *canonicalWriter) rule(r *Rule) {
	w.element()
	w.open('{')
	w.text("action", string(r.Rule.Action))
	if r.Rule.HasArgs {
		w.key("allowedArgs")
		w.list(r.Rule.AllowedArgs)
	}
	w.text("class", string(r.Rule.Class))
	w.directories(r.Directories)
	w.flag("dryRun", r.DryRun)
	w.number("index", r.Rule.Index)
	w.text("kind", string(r.Policy.Kind))
	w.text("message", r.Rule.Message)
	w.text("name", r.Policy.Name)
	w.text("namespace", r.Policy.Namespace)
	w.flag("noTerminal", r.Rule.NoTerminal)
	w.key("object")
	w.open('{')
	w.text("detail", r.Rule.Object.Detail)
	w.text("kind", string(r.Rule.Object.Kind))
	w.flag("recursive", r.Rule.Object.Recursive)
	w.strings("syscalls", r.Rule.Object.Syscalls)
	w.text("value", r.Rule.Object.Value)
	w.close('}')
	w.strings("objects", r.Objects)
	w.flag("ownerOnly", r.Rule.OwnerOnly)
	w.flag("readOnly", r.Rule.ReadOnly)
	w.number("severity", r.Rule.Severity)
	w.strings("sources", r.Sources)
	w.strings("tags", r.Rule.Tags)
	w.text("version", r.Version)
	w.close('}')
}

func (w *canonicalWriter) directories(list []Directory) {
	if len(list) == 0 {
		return
	}
	w.key("directories")
	w.open('[')
	for _, d := range list {
		w.element()
		w.open('{')
		w.text("path", d.Path)
		w.flag("recursive", d.Recursive)
		w.close('}')
	}
	w.close(']')
}

func (w *canonicalWriter) element() {
	if w.comma {
		w.buf = append(w.buf, ',')
	}
	w.comma = true
}

func (w *canonicalWriter) open(c byte) {
	w.buf = append(w.buf, c)
	w.comma = false
}

func (w *canonicalWriter) close(c byte) {
	w.buf = append(w.buf, c)
	w.comma = true
}

func (w *canonicalWriter) key(name string) {
	w.element()
	w.quote(name)
	w.buf = append(w.buf, ':')
}

func (w *canonicalWriter) text(name, value string) {
	if value != "" {
		w.key(name)
		w.quote(value)
	}
}

func (w *canonicalWriter) number(name string, value int) {
	if value != 0 {
		w.key(name)
		w.buf = strconv.AppendInt(w.buf, int64(value), 10)
	}
}

func (w *canonicalWriter) flag(name string, value bool) {
	if value {
		w.key(name)
		w.buf = append(w.buf, "true"...)
	}
}

func (w *canonicalWriter) strings(name string, values []string) {
	if len(values) > 0 {
		w.key(name)
		w.list(values)
	}
}

func (w *canonicalWriter) list(values []string) {
	w.open('[')
	for _, v := range values {
		w.element()
		w.quote(v)
	}
	w.close(']')
}

// quote writes a JSON string as RFC 8785 does. A name on disk need not be UTF-8; JSON has no way to say
// such a name, so its bytes are written as Go's quoted string, which cannot be confused with a path
// because it begins with a quotation mark.
func (w *canonicalWriter) quote(s string) {
	if !utf8.ValidString(s) {
		s = strconv.Quote(s)
	}
	const hexDigits = "0123456789abcdef"
	w.buf = append(w.buf, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			w.buf = append(w.buf, '\\', c)
		case c >= ' ':
			w.buf = append(w.buf, c)
		default:
			if short := shortEscape(c); short != 0 {
				w.buf = append(w.buf, '\\', short)
			} else {
				w.buf = append(w.buf, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
		}
	}
	w.buf = append(w.buf, '"')
}

// shortEscape is the letter of a control character's short escape, or 0.
func shortEscape(c byte) byte {
	switch c {
	case '\b':
		return 'b'
	case '\f':
		return 'f'
	case '\n':
		return 'n'
	case '\r':
		return 'r'
	case '\t':
		return 't'
	default:
		return 0
	}
}
