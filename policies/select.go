// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Set is every policy of one release, parsed, with an index for Select. It is immutable.
type Set struct {
	policies   []*Policy
	conditions [][]condition
	// index leads from a scope and one word a policy asks for to the numbers of the policies that ask.
	index map[indexKey][]int
	// files lets a later Parse keep what has not changed.
	files map[string]parsedFile
}

// indexKey is where a policy is found: scopes are "host", "namespace/NAME" and "" for every namespace; the
// word is a "label=value", a host name after "name=", a container name after "container=", or "" when the
// policy asks for none of these.
type indexKey struct{ scope, word string }

// NewSet makes a Set of policies that are already known to be unique by ID.
func NewSet(list []*Policy) *Set {
	s := &Set{policies: slices.Clone(list), index: map[indexKey][]int{}}
	slices.SortFunc(s.policies, func(a, b *Policy) int { return compareIDs(a.ID, b.ID) })
	popularity := map[string]int{}
	for _, p := range s.policies {
		for key, want := range p.labels() {
			popularity[key+"="+want]++
		}
	}
	s.conditions = make([][]condition, len(s.policies))
	for number, p := range s.policies {
		s.conditions[number] = conditions(p)
		words := indexWords(p, popularity)
		for _, scope := range indexScopes(p) {
			for _, word := range words {
				key := indexKey{scope, word}
				s.index[key] = append(s.index[key], number)
			}
		}
	}
	return s
}

// labels are the labels that the selector wants to be equal, the names of hosts or containers among them.
func (p *Policy) labels() map[string]string {
	if len(p.Selector.Node) > 0 {
		return p.Selector.Node
	}
	return p.Selector.Labels
}

func compareIDs(a, b ID) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func indexScopes(p *Policy) []string {
	switch {
	case p.Kind == KindHost || len(p.Selector.Node) > 0:
		return []string{"host"}
	case p.namespaces() != nil:
		var scopes []string
		for _, namespace := range p.namespaces() {
			scopes = append(scopes, "namespace/"+namespace)
		}
		return scopes
	}
	for _, e := range p.Selector.Expressions {
		if e.Key == expressionNamespace && e.Operator == operatorIn {
			scopes := make([]string, len(e.Values))
			for i, namespace := range e.Values {
				scopes[i] = "namespace/" + namespace
			}
			return distinct(scopes)
		}
	}
	return []string{""}
}

// indexWords are the words of which a subject of the policy has at least one: those of the demand that
// fewest policies share.
func indexWords(p *Policy, popularity map[string]int) []string {
	var best []string
	least := 0
	for _, key := range slices.Sorted(maps.Keys(p.labels())) {
		words := labelWords(p, key, p.labels()[key])
		if count := popularity[key+"="+p.labels()[key]]; words != nil && (best == nil || count < least) {
			best, least = words, count
		}
	}
	if best != nil {
		return best
	}
	for _, e := range p.Selector.Expressions {
		// A container's name is no label of the subject, so that such words lead nowhere.
		isName := func(word string) bool { return strings.HasPrefix(word, LabelContainerName+"=") }
		if e.Key == expressionLabel && e.Operator == operatorIn && !slices.ContainsFunc(e.Values, isName) {
			return distinct(e.Values)
		}
	}
	return []string{""}
}

// labelWords are the words that one wanted label stands for, or nil when it cannot be looked up.
func labelWords(p *Policy, key, want string) []string {
	prefix := ""
	var names []string
	switch key {
	case labelHostReg, labelHostRegKube:
		return nil
	case labelHost, LabelHostname:
		if len(p.Selector.Node) == 0 {
			return []string{key + "=" + want}
		}
		prefix, names = "name=", splitList(want)
		if slices.Contains(names, "*") {
			return nil
		}
	case LabelContainerName:
		prefix, names = "container=", possibleNames(p.namespaces(), want)
		if len(names) == 0 {
			return nil
		}
	default:
		return []string{key + "=" + want}
	}
	words := make([]string, len(names))
	for i, name := range names {
		words[i] = prefix + name
	}
	return distinct(words)
}

func distinct(words []string) []string {
	sorted := slices.Clone(words)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

// Policies returns the policies in the order of their IDs (kind, namespace, name).
func (s *Set) Policies() []*Policy { return s.policies }

// Select returns the policies that are for the subject, in the order of their IDs. Its cost follows the
// policies that share a word with the subject, not the size of the set.
func Select(set *Set, s Subject) []*Policy {
	scopes := []string{"host"}
	words := []string{"", "name=" + hostname(&s)}
	if !s.Host {
		scopes = []string{"namespace/" + s.Namespace, ""}
		words[1] = "container=" + s.ContainerName
	}
	for key, v := range s.Labels {
		words = append(words, key+"="+v)
	}
	var numbers []int
	for _, scope := range scopes {
		for _, word := range words {
			numbers = append(numbers, set.index[indexKey{scope, word}]...)
		}
	}
	slices.Sort(numbers)
	var list []*Policy
	for _, number := range slices.Compact(numbers) {
		fails := func(c condition) bool { return !c.holds(&s) }
		if !slices.ContainsFunc(set.conditions[number], fails) {
			list = append(list, set.policies[number])
		}
	}
	return list
}
