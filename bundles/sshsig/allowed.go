// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package sshsig

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Errors of enrolment.
var (
	// ErrAllowedSigners is the kind of error for a file that is not understood.
	ErrAllowedSigners = errors.New("allowed signers")
	// ErrNotEnrolled says that no line lets this key speak for this host now.
	ErrNotEnrolled = errors.New("not enrolled")
)

// maxAllowedLine is far above any certificate; it bounds the work a hostile file can cause.
const maxAllowedLine = 64 << 10

// AllowedSigners is a parsed list: which key may speak for which principal.
//
// The format is OpenSSH's (ssh-keygen(1), ALLOWED SIGNERS), read strictly: an option or a time that is not
// understood is an error, times must be in UTC ("Z") since a file that many machines read cannot depend on
// each one's zone, patterns are for cert-authority lines only, and one plain key has one line.
type AllowedSigners struct {
	byKey map[string][]allowedLine // by wire form of the plain key or of the authority
	// principal says why a name is none.
	principal func(string) error
}

// linePosition is a place in the file; the line starts at 1.
type linePosition struct {
	file string
	line int
}

type allowedLine struct {
	pos         linePosition
	principals  []string
	authority   bool
	namespaces  []string // empty: any
	validAfter  time.Time
	validBefore time.Time
}

// Empty reports whether nobody is enrolled.
func (a *AllowedSigners) Empty() bool { return a == nil || len(a.byKey) == 0 }

// Check answers nil when key may speak for host in this namespace at this moment.
func (a *AllowedSigners) Check(host string, key ssh.PublicKey, namespace string, now time.Time) error {
	if a.Empty() {
		return ErrNotEnrolled
	}
	cert, isCert := key.(*ssh.Certificate)
	why := "no line for this key"
	for _, l := range a.byKey[string(PlainKey(key).Marshal())] {
		if l.authority {
			continue
		}
		if why = l.refuses(host, namespace, now); why == "" {
			return nil
		}
	}
	if !isCert {
		return fmt.Errorf("%w: %s", ErrNotEnrolled, why)
	}
	for _, l := range a.byKey[string(cert.SignatureKey.Marshal())] {
		if !l.authority {
			continue
		}
		if why = l.refuses(host, namespace, now); why != "" {
			continue
		}
		if err := checkCertificate(cert, host, now); err != nil {
			return fmt.Errorf("%w: %s", ErrNotEnrolled, printable(err.Error(), 120))
		}
		return nil
	}
	return fmt.Errorf("%w: %s", ErrNotEnrolled, why)
}

// refuses answers why the line does not hold, or "".
func (l allowedLine) refuses(host, namespace string, now time.Time) string {
	switch {
	case !matchList(l.principals, host):
		return "the key is another's"
	case len(l.namespaces) > 0 && !matchList(l.namespaces, namespace):
		return "the line is for other namespaces"
	case !l.validAfter.IsZero() && now.Before(l.validAfter):
		return "the line is not valid yet"
	case !l.validBefore.IsZero() && !now.Before(l.validBefore):
		return "the line is not valid any more"
	}
	return ""
}

// checkCertificate accepts user and host certificates alike: the line names the authority for this very
// purpose. (ssh-keygen -Y verify knows user certificates only.)
func checkCertificate(cert *ssh.Certificate, host string, now time.Time) error {
	if len(cert.ValidPrincipals) == 0 {
		return errors.New("a certificate without principals speaks for everybody")
	}
	if len(cert.CriticalOptions) > 0 {
		return errors.New("a critical option of the certificate is not understood")
	}
	if cert.Signature == nil || cert.Signature.Format == ssh.KeyAlgoRSA {
		return errors.New("the certificate is signed with SHA-1")
	}
	checker := ssh.CertChecker{Clock: func() time.Time { return now }}
	return checker.CheckCert(host, cert)
}

// matchList applies an OpenSSH pattern list: "*" and "?" match, "!" before a pattern excludes.
func matchList(patterns []string, s string) bool {
	found := false
	for _, p := range patterns {
		rest, negated := strings.CutPrefix(p, "!")
		if !matchPattern(rest, s) {
			continue
		}
		if negated {
			return false
		}
		found = true
	}
	return found
}

// matchPattern is linear in len(p) x len(s): it goes back to the last star only.
func matchPattern(p, s string) bool {
	pi, si, star, mark := 0, 0, -1, 0
	for si < len(s) {
		switch {
		case pi < len(p) && p[pi] == '*':
			star, mark = pi, si
			pi++
		case pi < len(p) && (p[pi] == '?' || p[pi] == s[si]):
			pi++
			si++
		case star >= 0:
			mark++
			pi, si = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(p[pi:], "*") == ""
}

// Parse reads a whole file; name is used in positions, and principal says why a name is none. Every problem is
// reported, joined.
func Parse(name string, b []byte, principal func(string) error) (*AllowedSigners, error) {
	a := &AllowedSigners{byKey: map[string][]allowedLine{}, principal: principal}
	var problems []error
	for i, text := range bytes.Split(b, []byte("\n")) {
		pos := linePosition{file: name, line: i + 1}
		if err := a.addLine(pos, string(text)); err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return a, nil
}

func (a *AllowedSigners) addLine(pos linePosition, text string) error {
	text = strings.TrimSuffix(text, "\r")
	if len(text) > maxAllowedLine {
		return lineError(pos, 0, "line of %d bytes", len(text))
	}
	p := lineParser{pos: pos, text: text, principal: a.principal}
	l, key, err := p.parse()
	if err != nil || key == nil {
		return err
	}
	wire := string(key.Marshal())
	for _, other := range a.byKey[wire] {
		if !l.authority && !other.authority {
			return lineError(pos, 0, "this key is enrolled already in line %d: one key has one line", other.pos.line)
		}
	}
	a.byKey[wire] = append(a.byKey[wire], l)
	return nil
}

// LineError is one thing wrong at one place of the file.
type LineError struct {
	File         string
	Line, Column int // from 1
	Message      string
}

func (e *LineError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %v: %s", e.File, e.Line, e.Column, ErrAllowedSigners, e.Message)
}

// Unwrap makes errors.Is(err, ErrAllowedSigners) true.
func (e *LineError) Unwrap() error { return ErrAllowedSigners }

// Hint is what to write instead.
func (e *LineError) Hint() string {
	return "a line is: NAME [options] KEYTYPE BASE64, as muster join prints it; # begins a comment"
}

func lineError(pos linePosition, at int, format string, args ...any) error {
	return &LineError{File: pos.file, Line: pos.line, Column: at + 1, Message: fmt.Sprintf(format, args...)}
}

// Who answers the principals of the line that lets key sign in this namespace at this moment, whoever it names. A
// certificate's own principals are checked against its authority's line.
func (a *AllowedSigners) Who(key ssh.PublicKey, namespace string, now time.Time) (string, error) {
	var names []string
	if cert, ok := key.(*ssh.Certificate); ok {
		names = append(names, cert.ValidPrincipals...)
	}
	for _, l := range a.byKey[string(PlainKey(key).Marshal())] {
		if !l.authority {
			names = append(names, l.principals...)
		}
	}
	err := fmt.Errorf("%w: no line for this key", ErrNotEnrolled)
	for _, name := range names {
		if err = a.Check(name, key, namespace, now); err == nil {
			return name, nil
		}
	}
	return "", err
}

// Len is how many keys and authorities are listed.
func (a *AllowedSigners) Len() int { return len(a.byKey) }
