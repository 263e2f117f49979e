// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// verifyPolicy checks what the selector means in the policy's own namespace.
func verifyPolicy(kind Kind) func(*value, reporter) {
	return func(v *value, report reporter) {
		name := v.get("spec").get("selector").get("matchLabels").get(LabelContainerName)
		if kind != KindContainer || name == nil {
			return
		}
		switch v.get("metadata").textOf("namespace") {
		case UnorchestratedNamespace:
		case "":
			if strings.HasPrefix(name.text, "[") {
				return // a list, for the default namespace
			}
		default:
			return
		}
		if _, err := containerExpression(name.text); err != nil {
			report(name.node, fmt.Sprintf("%s: %s is no regular expression: %v", LabelContainerName, quoted(name.text), err),
				"in "+UnorchestratedNamespace+" a container's name is an anchored regular expression")
		}
	}
}

// verifyNodeSelector refuses the selector that selects no host and patterns that are none.
func verifyNodeSelector(v *value, report reporter) {
	labels := v.get("matchLabels")
	if len(v.node.Content) == 0 || labels != nil && len(labels.node.Content) == 0 {
		report(v.node, "nodeSelector without a label selects no host", `write matchLabels: {kubernetes.io/hostname: "*"} for all hosts`)
	}
	if labels == nil {
		return
	}
	for _, m := range labels.members {
		switch m.name {
		case labelHostReg, labelHostRegKube:
			if _, err := hostExpression(m.value.text); err != nil {
				report(m.value.node, fmt.Sprintf("%s: %s is no pattern: %v", m.name, quoted(m.value.text), err),
					"write a regular expression that matches the whole name, such as web-[0-9]+")
			}
		case labelHost, LabelHostname:
			if slices.Contains(splitList(m.value.text), "") {
				report(m.value.node, m.name+": empty host name", `write names separated by commas, or "*"`)
				return
			}
		}
	}
}

// verifyExpression refuses label words that can never equal a label.
func verifyExpression(v *value, report reporter) {
	values := v.get("values")
	if v.textOf("key") != expressionLabel || values == nil {
		return
	}
	for _, item := range values.items {
		if key, _, ok := strings.Cut(item.text, "="); !ok || key == "" {
			report(item.node, quoted(item.text)+" is not label=value", "write the label, =, and its value")
		}
	}
}

// verifyNetworkSpec demands hosts or pods, not both and not neither.
func verifyNetworkSpec(v *value, report reporter) {
	node, pods := findKey(v.node, "nodeSelector"), findKey(v.node, "selector")
	switch {
	case node == nil && pods == nil:
		report(v.node, "spec lacks nodeSelector (for hosts) or selector (for pods)", `write nodeSelector: {matchLabels: {kubernetes.io/hostname: "*"}} for all hosts`)
	case node != nil && pods != nil:
		report(pods, "spec has both nodeSelector and selector", "write one policy for hosts and one for pods")
	}
}

// findKey returns the key node of a mapping's field whether its value is right or not.
func findKey(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i]
		}
	}
	return nil
}

// verifyPort checks that a range of ports is one.
func verifyPort(v *value, report reporter) {
	last, first := v.get("endPort"), v.get("port")
	if last == nil || first == nil {
		return
	}
	if number := portNumber(first.text); last.integer < number {
		report(last.node, fmt.Sprintf("endPort %d is below port %d", last.integer, number), "port is the first of the range and endPort the last; leave endPort out for one port")
	}
}
