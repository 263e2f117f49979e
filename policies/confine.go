// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"regexp"
	"slices"
	"strings"
)

// HostPattern is a host's name, or the beginning of names when it ends in "*" ("web-*").
type HostPattern string

// Covers says that every host that the other one means is meant by this one, too.
func (h HostPattern) Covers(other HostPattern) bool {
	start, isStart := strings.CutSuffix(string(h), "*")
	if isStart {
		return strings.HasPrefix(strings.TrimSuffix(string(other), "*"), start)
	}
	return h == other
}

// ConfinedTo says that the policy can select no host but those of the patterns, whatever labels a host has: what it
// asks of the host's name lies inside. A policy that asks for other labels only, or is for containers, is not confined.
func (p *Policy) ConfinedTo(patterns []HostPattern) bool {
	if !p.forHosts() {
		return false
	}
	for key, want := range p.Selector.Node {
		if names := namedHosts(key, want); len(names) > 0 && allCovered(names, patterns) {
			return true // all labels of a selector must hold, so that one is enough
		}
	}
	return false
}

func allCovered(names, patterns []HostPattern) bool {
	return !slices.ContainsFunc(names, func(name HostPattern) bool {
		return !slices.ContainsFunc(patterns, func(p HostPattern) bool { return p.Covers(name) })
	})
}

// namedHosts are the hosts that a label of a nodeSelector names, nil when it asks for something else.
func namedHosts(key, want string) []HostPattern {
	switch key {
	case labelHost, LabelHostname:
		var names []HostPattern
		for _, name := range splitList(want) {
			names = append(names, HostPattern(name))
		}
		return names
	case labelHostReg, labelHostRegKube:
		re, err := regexp.Compile(hostExpressionText(want))
		if err != nil {
			return nil
		}
		start, complete := re.LiteralPrefix()
		if complete {
			return []HostPattern{HostPattern(start)}
		}
		return []HostPattern{HostPattern(start + "*")}
	}
	return nil
}
