// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// The labels that are not compared as other labels are.
const (
	// LabelHostname is the node label that carries the host's name.
	LabelHostname = "kubernetes.io/hostname"
	// LabelContainerName selects by the container's name: [c1,c2], or an anchored regular expression in
	// the namespace container_namespace.
	LabelContainerName = "kubearmor.io/container.name"

	labelHost        = "kubearmor.io/hostname"
	labelHostReg     = "kubearmor.io/hostnamereg"
	labelHostRegKube = "kubernetes.io/hostnamereg"

	expressionLabel     = "label"
	expressionNamespace = "namespace"
	operatorIn          = "In"

	defaultNamespace = "default"
)

// The bounds of a name expression. Ten thousand policies may each have one, and a repetition makes the
// compiled form much larger than the text.
const (
	maxExpression = 1024
	maxProgram    = 2000
)

var errExpressionLarge = errors.New("it is too large: at most 1024 bytes, and few repetitions")

// condition is one thing that a selector asks of a subject. All must hold.
type condition struct {
	wants string
	has   func(*Subject) string // what the subject has instead, for people
	holds func(*Subject) bool
}

// conditions compiles what a policy asks of its subjects. Selection and Explain both follow it.
func conditions(p *Policy) []condition {
	if p.forHosts() {
		return hostConditions(p)
	}
	list := []condition{{
		wants: "a container", has: func(*Subject) string { return "the host" },
		holds: func(s *Subject) bool { return !s.Host },
	}}
	if namespaces := p.namespaces(); namespaces != nil {
		list = append(list, condition{
			wants: "namespace " + strings.Join(namespaces, " or "), has: subjectNamespace,
			holds: func(s *Subject) bool { return slices.Contains(namespaces, s.Namespace) },
		})
	}
	for _, key := range slices.Sorted(maps.Keys(p.Selector.Labels)) {
		want := p.Selector.Labels[key]
		if key == LabelContainerName {
			list = append(list, containerName(p.namespaces(), want))
			continue
		}
		list = append(list, labelEquals(key, want))
	}
	for _, e := range p.Selector.Expressions {
		list = append(list, expressionCondition(e))
	}
	return list
}

// forHosts says that the policy goes by its nodeSelector.
func (p *Policy) forHosts() bool {
	return p.Kind == KindHost || p.Kind == KindNetwork && len(p.Selector.Node) > 0
}

// namespaces are the namespaces that a policy is for by its own, or nil for all of them. A KubeArmorPolicy
// that names none is for the cluster's default and, as KubeArmor has it on plain hosts, for containers that
// no orchestrator runs.
func (p *Policy) namespaces() []string {
	switch {
	case p.Namespace != "":
		return []string{p.Namespace}
	case p.Kind == KindContainer:
		return []string{defaultNamespace, UnorchestratedNamespace}
	}
	return nil
}

func subjectNamespace(s *Subject) string { return "namespace " + s.Namespace }

func subjectLabel(key string) func(*Subject) string {
	return func(s *Subject) string {
		if v, ok := s.Labels[key]; ok {
			return "label " + key + "=" + v
		}
		return "no label " + key
	}
}

func labelEquals(key, want string) condition {
	return condition{
		wants: "label " + key + "=" + want, has: subjectLabel(key),
		holds: func(s *Subject) bool { v, ok := s.Labels[key]; return ok && v == want },
	}
}

func hostConditions(p *Policy) []condition {
	list := []condition{{
		wants: "a host", has: func(*Subject) string { return "a container" },
		holds: func(s *Subject) bool { return s.Host },
	}}
	if len(p.Selector.Node) == 0 {
		return append(list, condition{
			wants: "a label", has: func(*Subject) string { return "any" },
			holds: func(*Subject) bool { return false },
		})
	}
	for _, key := range slices.Sorted(maps.Keys(p.Selector.Node)) {
		want := p.Selector.Node[key]
		switch key {
		case labelHost, LabelHostname:
			names := splitList(want)
			list = append(list, condition{
				wants: "host name " + want, has: subjectHost,
				holds: func(s *Subject) bool {
					name := hostname(s)
					return slices.Contains(names, "*") || name != "" && slices.Contains(names, name)
				},
			})
		case labelHostReg, labelHostRegKube:
			re, err := hostExpression(want)
			list = append(list, condition{
				wants: "host name matching " + want, has: subjectHost,
				holds: func(s *Subject) bool { return err == nil && re.MatchString(hostname(s)) },
			})
		default:
			list = append(list, labelEquals(key, want))
		}
	}
	return list
}

func subjectHost(s *Subject) string { return "host name " + hostname(s) }

// hostname is the name the node goes by: its label, under either of the two names it has.
func hostname(s *Subject) string {
	if name := s.Labels[LabelHostname]; name != "" {
		return name
	}
	return s.Labels[labelHost]
}

// hostExpression compiles a hostnamereg. It must match the whole name.
func hostExpression(text string) (*regexp.Regexp, error) { return anchored(hostExpressionText(text)) }

// hostExpressionText is a hostnamereg as Go has it: a regular expression in which a * after nothing that it could
// repeat stands for any text, as in a glob ("web-*").
func hostExpressionText(text string) string {
	var b strings.Builder
	for i, c := range text {
		if c == '*' && (i == 0 || !strings.ContainsRune(`.])}\`, rune(text[i-1]))) {
			b.WriteByte('.')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// containerExpression compiles the name of an un-orchestrated container.
func containerExpression(text string) (*regexp.Regexp, error) { return anchored(text) }

func anchored(text string) (*regexp.Regexp, error) {
	if len(text) > maxExpression {
		return nil, errExpressionLarge
	}
	// Parsed by itself first, so that "a)|(b" cannot climb out of the anchors.
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(program.Inst) > maxProgram {
		return nil, errExpressionLarge
	}
	return regexp.Compile(`^(?:` + text + `)$`)
}

// containerName is the condition on the container's name: a list in a cluster, an expression outside one.
func containerName(namespaces []string, want string) condition {
	names := listedNames(want)
	var re *regexp.Regexp
	if namespaces == nil || slices.Contains(namespaces, UnorchestratedNamespace) {
		re, _ = containerExpression(want) // one that is none matches nothing; the parser refuses it
	}
	return condition{
		wants: "container name " + want,
		has:   func(s *Subject) string { return "container name " + s.ContainerName },
		holds: func(s *Subject) bool {
			if s.Namespace == UnorchestratedNamespace {
				return re != nil && re.MatchString(s.ContainerName)
			}
			return len(names) == 0 || slices.Contains(names, s.ContainerName)
		},
	}
}

// listedNames are the names in "[c1,c2]" or "c1"; none of them means every container.
func listedNames(want string) []string {
	want = strings.TrimSuffix(strings.TrimPrefix(want, "["), "]")
	var names []string
	for _, name := range splitList(want) {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// possibleNames are the only container names that a policy with this container.name can be for, or nil
// when they cannot be told.
func possibleNames(namespaces []string, want string) []string {
	plain := want != "" && regexp.QuoteMeta(want) == want
	if plain || namespaces != nil && !slices.Contains(namespaces, UnorchestratedNamespace) {
		return listedNames(want)
	}
	return nil
}

func expressionCondition(e Expression) condition {
	in := e.Operator == operatorIn
	c := condition{wants: e.Key + " " + e.Operator + " " + strings.Join(e.Values, ",")}
	if e.Key == expressionNamespace {
		c.has = subjectNamespace
		c.holds = func(s *Subject) bool { return slices.Contains(e.Values, s.Namespace) == in }
		return c
	}
	c.has = func(s *Subject) string {
		var have []string
		for _, word := range e.Values {
			if key, _, _ := strings.Cut(word, "="); !slices.Contains(have, key) {
				have = append(have, key)
			}
		}
		for i, key := range have {
			have[i] = subjectLabel(key)(s)
		}
		return strings.Join(have, ", ")
	}
	c.holds = func(s *Subject) bool {
		return slices.ContainsFunc(e.Values, func(w string) bool { return hasWord(s, w) }) == in
	}
	return c
}

// hasWord says whether the subject has the label that "key=value" names.
func hasWord(s *Subject, word string) bool {
	key, want, ok := strings.Cut(word, "=")
	if !ok {
		return false
	}
	if key == LabelContainerName {
		return s.ContainerName == want
	}
	have, ok := s.Labels[key]
	return ok && have == want
}

// Explain says in words whether the policy is for the subject, and if not, the first reason why.
func Explain(p *Policy, s Subject) string {
	var met []string
	for _, c := range conditions(p) {
		if !c.holds(&s) {
			return fmt.Sprintf("%s is not for this subject: it is for %s, the subject has %s", p.ID, c.wants, c.has(&s))
		}
		met = append(met, c.wants)
	}
	return fmt.Sprintf("%s is for this subject: %s", p.ID, strings.Join(met, ", "))
}
