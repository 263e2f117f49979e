// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"strings"
)

// Warnings are the rules of a set that parse and yet cannot do what their writer hoped: those that a glance
// at one policy proves without effect. It is never complete.
func Warnings(set *Set) Problems {
	var list Problems
	warn := func(at Position, message, hint string) {
		list = append(list, Problem{Position: at, Message: message, Hint: hint})
	}
	for _, p := range set.Policies() {
		if len(p.Rules) == 0 {
			warn(p.Position, p.String()+" has no rules", "add a rule, or remove the policy: it has no effect")
		}
		seen := map[string]Position{}
		for _, r := range p.Rules {
			if first, ok := seen[r.meaning()]; ok && first != r.Position {
				warn(r.Position, "this rule repeats the rule at line "+fmt.Sprint(first.Line), "leave one of them out")
			}
			seen[r.meaning()] = r.Position
			if message, hint := idle(r); message != "" {
				warn(r.Position, message, hint)
			}
		}
	}
	list.sort()
	return list
}

// meaning is everything of a rule that decides when it fires and what then happens.
func (r *Rule) meaning() string {
	plain := *r
	plain.Index, plain.Position = 0, Position{}
	return detail(plain)
}

// idle says why a rule's object has no effect, or less than it looks.
func idle(r Rule) (message, hint string) {
	o := r.Object
	switch {
	case o.Kind == ObjectSyscall && o.Recursive && !strings.HasSuffix(o.Value, "/"):
		return "recursive has no effect: " + brief(o.Value) + " is not a directory", "end the directory's name in /"
	case o.Kind != ObjectPattern:
		return "", ""
	}
	pattern, err := ParsePattern(o.Value)
	if err != nil {
		return "", ""
	}
	last := pattern.Nodes[len(pattern.Nodes)-1]
	switch {
	case o.Value != "/" && last.Op == PatternLiteral && strings.HasSuffix(last.Literal, "/"):
		return "pattern " + quoted(o.Value) + " can never match: no path ends in /", "leave the last / out"
	case pattern.IsLiteral():
		return "pattern " + quoted(o.Value) + " has no special character", "matchPaths also protects the file under its other names"
	}
	return "", ""
}
