// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"strings"

	"github.com/muster-fleet/muster/policies"
)

// aliasKey is the path of an object that symlinks can lead elsewhere: an exact path, a directory, or the
// directory that a pattern begins with; empty for an object that has none.
func aliasKey(o policies.Object) string {
	switch o.Kind {
	case policies.ObjectPath, policies.ObjectDirectory:
		return o.Value
	case policies.ObjectPattern:
		prefix := literalPrefix(o.Value)
		return prefix[:strings.LastIndexByte(prefix, '/')+1]
	case policies.ObjectSyscall:
		return o.Value
	default:
		return ""
	}
}

// afterDirectory is what follows, in a pattern as written, the directory that it begins with.
func afterDirectory(pattern string) string {
	end := 0
	for at := 0; at < len(pattern); at++ {
		switch pattern[at] {
		case '*', '?', '[', '{':
			return pattern[end:]
		case '\\':
			at++
			if at < len(pattern) && pattern[at] == '/' {
				end = at + 1
			}
		case '/':
			end = at + 1
		}
	}
	return pattern[end:]
}

// escapePattern writes a path as a pattern that matches only it.
func escapePattern(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if strings.IndexByte(`*?[]{}\`, path[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(path[i])
	}
	return b.String()
}
