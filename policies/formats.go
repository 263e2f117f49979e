// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// The formats that need no parameters. Their patterns are what JSON Schema can say of them.
var (
	pathFormat       = &format{check: checkPath, pattern: `^/.*[^/]$`, maxLength: MaxPath}
	dirFormat        = &format{check: checkDir, pattern: `^/(.*/)?$`, maxLength: MaxPath}
	anyDirFormat     = &format{check: checkSpelling, pattern: `^/`, maxLength: MaxPath}
	pathOrDirFormat  = &format{check: checkSpelling, pattern: `^/`, maxLength: MaxPath}
	execNameFormat   = &format{check: checkExecName, pattern: `^[^/]+$`, maxLength: maxName}
	patternFormat    = &format{check: checkPattern, pattern: `^[/*{\\]`, maxLength: MaxPath}
	actionFormat     = &format{check: checkAction, enum: []string{"Allow", "Audit", "Block"}, closed: true}
	specActionFormat = &format{check: checkSpecAction, enum: []string{"Allow", "Audit", "Block", "allow", "audit", "block"}, closed: true}
	protocolFormat   = &format{check: checkProtocols, enum: slices.Concat(protocolNames, upper(protocolNames)), pattern: `,`}
	capabilityFormat = &format{check: checkCapabilities, enum: capabilityNames, pattern: capabilityPattern()}
	syscallFormat    = &format{check: checkSyscall, enum: syscallNames, closed: true}
	presetFormat     = &format{check: checkPreset, enum: presetNames, closed: true}
	domainFormat     = &format{check: checkDomain, pattern: `^[A-Za-z0-9_.-]+$`, maxLength: 254}
	nameFormat       = &format{check: checkName, pattern: namePattern, maxLength: 253}
	namespaceFormat  = &format{check: checkNamespace, pattern: `^([a-z0-9]([a-z0-9-]*[a-z0-9])?|container_namespace)$`, maxLength: 63}
)

// maxName is the kernel's NAME_MAX.
const maxName = 255

// UnorchestratedNamespace is where containers live that no orchestrator runs.
const UnorchestratedNamespace = "container_namespace"

const namePattern = `^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`

var nameExpression = regexp.MustCompile(namePattern)

func upper(words []string) []string {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = strings.ToUpper(w)
	}
	return list
}

// checkSpelling checks what holds for every kind of path. Alone it serves where a path or a directory may
// stand and for the directories of syscall sources, whose last slash KubeArmor does not ask for.
func checkSpelling(text string) *flaw {
	switch {
	case text == "":
		return &flaw{"empty path", "write an absolute path"}
	case text[0] != '/':
		return &flaw{fmt.Sprintf("%q is not an absolute path", brief(text)), "begin it with /"}
	case len(text) > MaxPath:
		return &flaw{fmt.Sprintf("path of %d bytes exceeds the limit of %d", len(text), MaxPath), "no path in the kernel is longer"}
	case strings.IndexByte(text, 0) >= 0:
		return &flaw{fmt.Sprintf("%q contains a NUL byte", brief(text)), "no path contains one"}
	}
	clean := path.Clean(text)
	if clean != "/" && strings.HasSuffix(text, "/") {
		clean += "/"
	}
	if clean != text {
		return &flaw{fmt.Sprintf("%q is not a plain path: it contains //, /./ or /../", brief(text)), "write " + brief(clean)}
	}
	for part := range strings.SplitSeq(text, "/") {
		if len(part) > maxName {
			return &flaw{fmt.Sprintf("%q has a component of more than %d bytes", brief(text), maxName), "no file name in the kernel is longer"}
		}
	}
	return nil
}

func checkPath(text string) *flaw {
	if f := checkSpelling(text); f != nil {
		return f
	}
	if strings.HasSuffix(text, "/") {
		return &flaw{fmt.Sprintf("%q names a directory", brief(text)), "leave the last / out, or use matchDirectories"}
	}
	return nil
}

func checkDir(text string) *flaw {
	if f := checkSpelling(text); f != nil {
		return f
	}
	if !strings.HasSuffix(text, "/") {
		return &flaw{fmt.Sprintf("directory %q does not end in /", brief(text)), "write " + brief(text) + "/"}
	}
	return nil
}

func checkExecName(text string) *flaw {
	switch {
	case text == "" || text == "." || text == "..":
		return &flaw{fmt.Sprintf("%q is no file name", text), "write the last component of the program's path, such as apt-get"}
	case strings.ContainsAny(text, "/\x00"):
		return &flaw{fmt.Sprintf("execname %q is not a bare file name", brief(text)), "use path for a path"}
	case len(text) > maxName:
		return &flaw{fmt.Sprintf("execname of %d bytes exceeds the limit of %d", len(text), maxName), "no file name in the kernel is longer"}
	}
	return nil
}

func checkPattern(text string) *flaw {
	_, err := ParsePattern(text)
	if err == nil {
		return nil
	}
	f := &flaw{reason: fmt.Sprintf("bad pattern %q: %v", brief(text), err)}
	if e, ok := errors.AsType[*PatternError](err); ok {
		f.hint = e.Advice
	}
	return f
}

func checkAction(text string) *flaw {
	if f := oneOf("action", text, actionWords()); f != nil {
		if f.hint != "" && strings.EqualFold(text, nearest(text, actionWords())) {
			f.hint = "in a section or rule the action is written " + nearest(text, actionWords())
		}
		return f
	}
	return nil
}

// checkSpecAction also takes the lower-case spellings, which KubeArmor takes at this one place.
func checkSpecAction(text string) *flaw {
	if text == "allow" || text == "audit" || text == "block" {
		return nil
	}
	return oneOf("action", text, actionWords())
}

func actionWords() []string {
	return []string{string(ActionAllow), string(ActionAudit), string(ActionBlock)}
}

// splitList splits KubeArmor's comma lists ("tcp, udp").
func splitList(text string) []string {
	parts := strings.Split(text, ",")
	for i, p := range parts {
		parts[i] = strings.TrimSpace(p)
	}
	return parts
}

// checkProtocols takes lower or upper case, never a mixture.
func checkProtocols(text string) *flaw {
	for _, word := range splitList(text) {
		if word == strings.ToUpper(word) && slices.Contains(protocolNames, strings.ToLower(word)) {
			continue
		}
		if f := oneOf("protocol", word, protocolNames); f != nil {
			return f
		}
	}
	return nil
}

// capabilityName is the canonical spelling of a capability: lower case, without cap_.
func capabilityName(word string) string {
	return strings.TrimPrefix(strings.ToLower(word), "cap_")
}

func checkCapabilities(text string) *flaw {
	for _, word := range splitList(text) {
		if f := oneOf("capability", capabilityName(word), capabilityNames); f != nil {
			return &flaw{fmt.Sprintf("%q is no capability", brief(word)), f.hint}
		}
	}
	return nil
}

// capabilityPattern matches every capability in any case, with or without cap_, and comma lists of them.
func capabilityPattern() string {
	var all []string
	for _, name := range capabilityNames {
		all = append(all, anyCase(name))
	}
	one := `\s*(` + anyCase("cap_") + `)?(` + strings.Join(all, "|") + `)\s*`
	return "^" + one + "(," + one + ")*$"
}

func anyCase(word string) string {
	var b strings.Builder
	for _, c := range word {
		if c == '_' {
			b.WriteRune(c)
			continue
		}
		b.WriteString("[" + string(c) + strings.ToUpper(string(c)) + "]")
	}
	return b.String()
}

func checkSyscall(text string) *flaw { return oneOf("system call", text, syscallNames) }

func checkPreset(text string) *flaw { return oneOf("preset", text, presetNames) }

func checkDomain(text string) *flaw {
	name := strings.TrimSuffix(text, ".")
	bad := func(why, hint string) *flaw {
		return &flaw{fmt.Sprintf("%q is no domain name: %s", brief(text), why), hint}
	}
	switch {
	case name == "":
		return bad("it is empty", "write a name such as example.com; its subdomains are covered")
	case len(name) > 253:
		return bad("it is longer than 253 bytes", "no name in the DNS is longer")
	case strings.HasPrefix(name, "*."):
		return bad("it holds a *", "a domain covers its subdomains: write "+brief(name[2:]))
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return bad("its parts must have 1 to 63 bytes", "write parts separated by single dots, such as www.example.com")
		}
		for _, c := range label {
			if c >= utf8.RuneSelf {
				return bad("it is not ASCII", "write it in its xn-- form")
			}
			if !isAlphanumeric(c) && c != '-' && c != '_' {
				return bad(fmt.Sprintf("it holds %q", c), "use letters, digits, - and _ only, in parts separated by dots")
			}
		}
	}
	return nil
}

func isAlphanumeric(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func checkName(text string) *flaw {
	if len(text) > 253 || !nameExpression.MatchString(text) {
		return &flaw{
			fmt.Sprintf("%q is not an RFC 1123 name", brief(text)),
			"use lower-case letters, digits, - and . only, beginning and ending in a letter or digit, at most 253",
		}
	}
	return nil
}

func checkNamespace(text string) *flaw {
	if text == UnorchestratedNamespace {
		return nil
	}
	if len(text) > 63 || strings.Contains(text, ".") || !nameExpression.MatchString(text) {
		return &flaw{
			fmt.Sprintf("%q is not an RFC 1123 label", brief(text)),
			"use lower-case letters, digits and - only, beginning and ending in a letter or digit, at most 63",
		}
	}
	return nil
}

func checkLabelKey(text string) *flaw {
	if text == "" {
		return &flaw{"empty label name", "write the label's name, such as role"}
	}
	return nil
}
