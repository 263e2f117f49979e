// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package sshsig

import (
	"encoding/base64"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// lineParser reads one line: principals [options] keytype base64 [comment].
type lineParser struct {
	pos       linePosition
	text      string
	at        int
	principal func(string) error // says why a plain key's principal is none
}

func (p *lineParser) fail(at int, format string, args ...any) error {
	return lineError(p.pos, at, format, args...)
}

func (p *lineParser) parse() (allowedLine, ssh.PublicKey, error) {
	l := allowedLine{pos: p.pos}
	p.space()
	if p.at == len(p.text) || p.text[p.at] == '#' {
		return l, nil, nil
	}
	start := p.at
	names, err := p.word()
	if err != nil {
		return l, nil, err
	}
	l.principals = strings.Split(names, ",")
	if p.space(); p.at < len(p.text) && !isKeyType(p.peek()) {
		if err := p.options(&l); err != nil {
			return l, nil, err
		}
	}
	if err := p.checkPrincipals(l, start); err != nil {
		return l, nil, err
	}
	key, err := p.key()
	return l, key, err
}

// checkPrincipals: a plain key's names are names, an authority's are patterns of them.
func (p *lineParser) checkPrincipals(l allowedLine, at int) error {
	for _, name := range l.principals {
		pattern := strings.TrimPrefix(name, "!")
		if !l.authority {
			if strings.ContainsAny(name, "*?!") {
				return p.fail(at, "principal %q: a pattern is for cert-authority lines; a key is one's own", printable(name, 64))
			}
		} else if pattern != "" {
			// What a pattern stands for must be able to be a name.
			name = strings.Trim(strings.NewReplacer("*", "x", "?", "x").Replace(pattern), " ")
		}
		if err := p.principal(name); err != nil {
			return p.fail(at, "principal: %v", err)
		}
	}
	return nil
}

func (p *lineParser) options(l *allowedLine) error {
	seen := map[string]bool{}
	for {
		start := p.at
		name, value, quoted, err := p.option()
		if err != nil {
			return err
		}
		name = strings.ToLower(name)
		if seen[name] {
			return p.fail(start, "option %q twice", printable(name, 32))
		}
		seen[name] = true
		if err := p.setOption(l, start, name, value, quoted); err != nil {
			return err
		}
		if p.at == len(p.text) || p.text[p.at] != ',' {
			break
		}
		p.at++
	}
	if !l.validAfter.IsZero() && !l.validBefore.IsZero() && !l.validAfter.Before(l.validBefore) {
		return p.fail(0, "valid-before is not after valid-after")
	}
	return nil
}

func (p *lineParser) setOption(l *allowedLine, at int, name, value string, hasValue bool) (err error) {
	if name == "cert-authority" {
		if hasValue {
			return p.fail(at, "cert-authority takes no value")
		}
		l.authority = true
		return nil
	}
	if !hasValue {
		return p.fail(at, "option %q is not understood, or lacks its value", printable(name, 32))
	}
	switch name {
	case "namespaces":
		if value == "" {
			return p.fail(at, "namespaces is empty")
		}
		l.namespaces = strings.Split(value, ",")
	case "valid-after":
		l.validAfter, err = p.time(at, value)
	case "valid-before":
		l.validBefore, err = p.time(at, value)
	default:
		err = p.fail(at, "option %q is not understood", printable(name, 32))
	}
	return err
}

// option reads NAME or NAME=VALUE, where VALUE may be quoted as ssh-keygen writes it.
func (p *lineParser) option() (name, value string, hasValue bool, err error) {
	start := p.at
	for p.at < len(p.text) && !strings.ContainsRune("=, \t", rune(p.text[p.at])) {
		p.at++
	}
	name = p.text[start:p.at]
	if p.at == len(p.text) || p.text[p.at] != '=' {
		return name, "", false, nil
	}
	p.at++
	if p.at < len(p.text) && p.text[p.at] == '"' {
		value, err = p.quoted()
		return name, value, true, err
	}
	start = p.at
	for p.at < len(p.text) && !strings.ContainsRune(", \t", rune(p.text[p.at])) {
		p.at++
	}
	return name, p.text[start:p.at], true, nil
}

func (p *lineParser) quoted() (string, error) {
	start := p.at
	end := strings.IndexByte(p.text[p.at+1:], '"')
	if end < 0 {
		return "", p.fail(start, "quote is not closed")
	}
	value := p.text[p.at+1 : p.at+1+end]
	if strings.Contains(value, `\`) {
		return "", p.fail(start, "escapes are not understood")
	}
	p.at += end + 2
	return value, nil
}

// time reads YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, followed by Z.
func (p *lineParser) time(at int, value string) (time.Time, error) {
	digits, utc := strings.CutSuffix(value, "Z")
	if !utc {
		return time.Time{}, p.fail(at, "time %q has no Z: without it each machine would read it in its own zone", printable(value, 32))
	}
	layout, ok := map[int]string{8: "20060102", 12: "200601021504", 14: "20060102150405"}[len(digits)]
	if !ok {
		return time.Time{}, p.fail(at, "time %q is not YYYYMMDD[HHMM[SS]]Z", printable(value, 32))
	}
	t, err := time.Parse(layout, digits)
	if err != nil {
		return time.Time{}, p.fail(at, "time %q is not YYYYMMDD[HHMM[SS]]Z", printable(value, 32))
	}
	return t, nil
}

func (p *lineParser) key() (ssh.PublicKey, error) {
	p.space()
	start := p.at
	kind, err := p.word()
	if err != nil {
		return nil, err
	}
	p.space()
	text, err := p.word()
	if err != nil {
		return nil, err
	}
	if !isKeyType(kind) {
		return nil, p.fail(start, "key type %q is not understood", printable(kind, 64))
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, p.fail(start, "key is not base64")
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return nil, p.fail(start, "key: %s", printable(err.Error(), 120))
	}
	if key.Type() != kind {
		return nil, p.fail(start, "key is %s, the line says %s", key.Type(), kind)
	}
	if _, isCert := key.(*ssh.Certificate); isCert {
		return nil, p.fail(start, "a certificate cannot be enrolled; enrol its key, or its authority with cert-authority")
	}
	if err := AcceptableKey(key); err != nil {
		return nil, p.fail(start, "%v", err)
	}
	return key, nil
}

func isKeyType(word string) bool {
	return strings.HasPrefix(word, "ssh-") || strings.HasPrefix(word, "ecdsa-sha2-") || strings.HasPrefix(word, "sk-")
}

func (p *lineParser) space() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\t') {
		p.at++
	}
}

func (p *lineParser) peek() string {
	word, _, _ := strings.Cut(strings.ReplaceAll(p.text[p.at:], "\t", " "), " ")
	return word
}

// word reads up to the next space; a quoted word may hold spaces, as OpenSSH allows for principals.
func (p *lineParser) word() (string, error) {
	if p.at == len(p.text) {
		return "", p.fail(p.at, "line ends too early")
	}
	if p.text[p.at] == '"' {
		return p.quoted()
	}
	w := p.peek()
	p.at += len(w)
	return w, nil
}
