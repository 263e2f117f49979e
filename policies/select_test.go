// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func host(name string, labels ...string) Subject {
	s := Subject{Host: true, Labels: map[string]string{LabelHostname: name}}
	for _, word := range labels {
		key, v, _ := strings.Cut(word, "=")
		s.Labels[key] = v
	}
	return s
}

func container(namespace, name string, labels ...string) Subject {
	s := host("", labels...)
	delete(s.Labels, LabelHostname)
	s.Host, s.Namespace, s.ContainerName = false, namespace, name
	return s
}

// selectorCase is one policy, as YAML of its namespace and selector, and who it is and is not for.
type selectorCase struct {
	kind             Kind
	text             string
	selected, others []Subject
}

func selectorCases() []selectorCase {
	one := func(s ...Subject) []Subject { return s }
	return []selectorCase{
		{KindHost, `spec: {nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}}`, one(host("a"), host("b")), one(container("default", "c"))},
		{KindHost, `spec: {nodeSelector: {matchLabels: {kubernetes.io/hostname: a}}}`, one(host("a")), one(host("b"), host("aa"))},
		{KindHost, `spec: {nodeSelector: {matchLabels: {kubearmor.io/hostname: "a, b"}}}`, one(host("a"), host("b")), one(host("c"))},
		{KindHost, `spec: {nodeSelector: {matchLabels: {kubearmor.io/hostnamereg: node-*}}}`, one(host("node-42")), one(host("xnode-1"), host("nod"))},
		{KindHost, `spec: {nodeSelector: {matchLabels: {kubernetes.io/hostnamereg: "node-[0-9]+"}}}`, one(host("node-42")), one(host("node-x"))},
		{KindHost, `spec: {nodeSelector: {matchLabels: {kubernetes.io/hostnamereg: "a|b"}}}`, one(host("a"), host("b")), one(host("ax"))},
		{KindHost, `spec: {nodeSelector: {matchLabels: {role: db, tier: gold}}}`, one(host("a", "role=db", "tier=gold")), one(host("a", "role=db"), host("b"))},
		{KindHost, `spec: {nodeSelector: {matchLabels: {kubernetes.io/hostname: a, role: db}}}`, one(host("a", "role=db")), one(host("a"), host("b", "role=db"))},
		{KindNetwork, `spec: {nodeSelector: {matchLabels: {kubernetes.io/hostname: a}}}`, one(host("a")), one(container("default", "c"))},
		{KindNetwork, "metadata: {namespace: web}\nspec: {selector: {matchLabels: {app: x}}}", one(container("web", "c", "app=x")), one(container("b", "c", "app=x"), host("a", "app=x"))},
		{KindNetwork, `spec: {selector: {matchLabels: {kubearmor.io/container.name: "w.*"}}}`, one(container(UnorchestratedNamespace, "web")), one(container("b", "web"))},
		{KindContainer, "metadata: {namespace: web}\nspec: {selector: {}}", one(container("web", "c")), one(container("default", "c"), host("a"))},
		{KindContainer, "spec: {}", one(container("default", "c"), container(UnorchestratedNamespace, "c")), one(container("web", "c"))},
		{KindContainer, "metadata: {namespace: web}\nspec: {selector: {matchLabels: {app: x, tier: y}}}", one(container("web", "c", "app=x", "tier=y")), one(container("web", "c", "app=x"))},
		{KindContainer, "metadata: {namespace: web}\nspec: {selector: {matchLabels: {kubearmor.io/container.name: '[c1, c2]'}}}", one(container("web", "c2")), one(container("web", "c"))},
		{KindContainer, "metadata: {namespace: web}\nspec: {selector: {matchLabels: {kubearmor.io/container.name: '[]'}}}", one(container("web", "c2")), nil},
		{KindContainer, "metadata: {namespace: web}\nspec: {selector: {matchLabels: {kubearmor.io/container.name: 'c.'}}}", one(container("web", "c.")), one(container("web", "c1"))},
		{KindContainer, "metadata: {namespace: container_namespace}\nspec: {selector: {matchLabels: {kubearmor.io/container.name: '^web-[0-9]+$'}}}", one(container(UnorchestratedNamespace, "web-12")), one(container(UnorchestratedNamespace, "xweb-1"))},
		{KindContainer, "metadata: {namespace: container_namespace}\nspec: {selector: {matchLabels: {kubearmor.io/container.name: 'a|b'}}}", one(container(UnorchestratedNamespace, "b")), one(container(UnorchestratedNamespace, "ax"))},
		{KindContainer, "spec: {selector: {matchLabels: {kubearmor.io/container.name: wordpress-mysql}}}", one(container(UnorchestratedNamespace, "wordpress-mysql"), container("default", "wordpress-mysql")), one(container(UnorchestratedNamespace, "x"))},
		{KindContainer, "spec: {selector: {matchExpressions: [{key: label, operator: In, values: [app=a, app=b]}, {key: label, operator: NotIn, values: [tier=x]}]}}", one(container("default", "c", "app=b")), one(container("default", "c", "app=c"), container("default", "c", "app=b", "tier=x"))},
		{KindContainer, "spec: {selector: {matchExpressions: }}", one(container("default", "c")), nil},
		{KindContainer, "spec: {selector: {matchExpressions: [{key: label, operator: In, values: [kubearmor.io/container.name=c]}]}}", one(container("default", "c")), one(container("default", "d"))},
		{KindCluster, "spec: {selector: {matchExpressions: [{key: namespace, operator: In, values: [a, b]}]}}", one(container("a", "c"), container("b", "c")), one(container("c", "c"), host("a"))},
		{KindCluster, "metadata: {namespace: ignored}\nspec: {selector: {matchExpressions: [{key: namespace, operator: NotIn, values: [a]}, {key: label, operator: In, values: [app=x]}]}}", one(container("b", "c", "app=x")), one(container("a", "c", "app=x"), container("b", "c"))},
		{KindCluster, "spec: {}", one(container("a", "c"), container(UnorchestratedNamespace, "c")), one(host("a"))},
	}
}

// policyText completes a case to a document.
func policyText(kind Kind, text, name string) string {
	if !strings.HasPrefix(text, "metadata: {") {
		text = "metadata: {}\n" + text
	}
	text = strings.Replace(text, "metadata: {", "metadata: {name: "+name+", ", 1)
	return fmt.Sprintf("apiVersion: %s\nkind: %s\n%s\n", APIVersion, kind, text)
}

func TestSelect(t *testing.T) {
	t.Parallel()
	for i, c := range selectorCases() {
		list, err := ParseDocument("p.yaml", []byte(policyText(c.kind, c.text, fmt.Sprintf("p%d", i))))
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		set := NewSet(list)
		for _, s := range c.selected {
			if len(Select(set, s)) != 1 || !strings.Contains(Explain(list[0], s), "is for this subject") {
				t.Errorf("%s %s is not for %+v: %s", c.kind, c.text, s, Explain(list[0], s))
			}
		}
		for _, s := range c.others {
			if len(Select(set, s)) != 0 || !strings.Contains(Explain(list[0], s), "is not for this subject") {
				t.Errorf("%s %s is for %+v: %s", c.kind, c.text, s, Explain(list[0], s))
			}
		}
	}
}

// TestSelectAgainstEveryCondition compares the index with asking every policy, on all cases in one set and
// random subjects.
func TestSelectAgainstEveryCondition(t *testing.T) {
	t.Parallel()
	var list []*Policy
	for i, c := range selectorCases() {
		parsed, err := ParseDocument("p.yaml", []byte(policyText(c.kind, c.text, fmt.Sprintf("p%d", i))))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, parsed...)
	}
	list = append(list, fleetPolicies(200)...)
	set := NewSet(list)
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	for range 5000 {
		s := container(pick("default", "web", "a", "b", "team-3", UnorchestratedNamespace), pick("c", "c1", "web-1", "web", "b", "wordpress-mysql"))
		if random.IntN(3) == 0 {
			s = host(pick("a", "b", "node-1", "host-1", "aa"))
		}
		for range random.IntN(4) {
			s.Labels[pick("app", "tier", "role", "env")] = pick("x", "y", "a", "b", "db", "gold", "production", "a3", "a23")
		}
		var want []ID
		for number, p := range set.Policies() {
			if !slices.ContainsFunc(set.conditions[number], func(c condition) bool { return !c.holds(&s) }) {
				want = append(want, p.ID)
			}
		}
		var have []ID
		for _, p := range Select(set, s) {
			have = append(have, p.ID)
		}
		if !slices.Equal(want, have) {
			t.Fatalf("%+v: selected %v, want %v", s, have, want)
		}
	}
}
