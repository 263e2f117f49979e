// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"testing"
	"testing/fstest"
)

// fleetPolicies are n policies as a big fleet has them: most for one application of one namespace, some for
// every namespace, some for hosts.
func fleetPolicies(n int) []*Policy {
	list := make([]*Policy, n)
	for i := range list {
		p := &Policy{ID: ID{Kind: KindContainer, Namespace: fmt.Sprintf("team-%d", i%50), Name: fmt.Sprintf("p-%d", i)}}
		switch i % 20 {
		case 0:
			p.ID = ID{Kind: KindCluster, Name: p.Name}
			p.Selector.Expressions = []Expression{{Key: "namespace", Operator: "NotIn", Values: []string{fmt.Sprintf("team-%d", i%50)}}}
		case 1:
			p.ID = ID{Kind: KindHost, Name: p.Name}
			p.Selector.Node = map[string]string{LabelHostname: fmt.Sprintf("host-%d", i%1000)}
		case 2:
			p.Selector.Expressions = []Expression{{Key: "label", Operator: "In", Values: []string{fmt.Sprintf("app=a%d", i%400), "tier=back"}}}
		default:
			p.Selector.Labels = map[string]string{"env": "production", "app": fmt.Sprintf("a%d", i%400)}
		}
		list[i] = p
	}
	return list
}

func pods(n int) []Subject {
	list := make([]Subject, n)
	for i := range list {
		list[i] = Subject{
			Namespace: fmt.Sprintf("team-%d", i%50), ContainerName: "main",
			Labels: map[string]string{"env": "production", "app": fmt.Sprintf("a%d", i%400), "tier": "back", "pod-template-hash": "0123"},
		}
	}
	return list
}

// BenchmarkSelect is one pod among 10,000 policies, and 250 pods with the index made anew.
func BenchmarkSelect(b *testing.B) {
	list, subjects := fleetPolicies(10_000), pods(250)
	b.Run("one", func(b *testing.B) {
		set := NewSet(list)
		for i := 0; b.Loop(); i++ {
			Select(set, subjects[i%len(subjects)])
		}
	})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			set := NewSet(list)
			for _, s := range subjects {
				Select(set, s)
			}
		}
	})
	b.Run("unindexable", func(b *testing.B) {
		worst := make([]*Policy, 10_000)
		for i := range worst {
			worst[i] = &Policy{
				ID:       ID{Kind: KindCluster, Name: fmt.Sprintf("p-%d", i)},
				Selector: Selector{Expressions: []Expression{{Key: "label", Operator: "NotIn", Values: []string{"app=x", "app=y"}}}},
			}
		}
		set := NewSet(worst)
		for b.Loop() {
			for _, s := range subjects {
				Select(set, s)
			}
		}
	})
}

// fleetFiles is a repository of n files of about 1.4 kB.
func fleetFiles(n int) fstest.MapFS {
	files := fstest.MapFS{}
	for i := range n {
		text := fmt.Sprintf("apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: p-%d\n  namespace: team-%d\nspec:\n"+
			"  severity: 5\n  tags: [CIS, NIST]\n  message: something happened\n  selector:\n    matchLabels:\n      app: a%d\n  file:\n    matchPaths:\n", i, i%50, i%400)
		for j := range 12 {
			text += fmt.Sprintf("    - path: /srv/application-%d/data/file-%d\n      readOnly: true\n      fromSource:\n      - path: /usr/bin/program\n", i, j)
		}
		files[fmt.Sprintf("team-%d/p-%d.yaml", i%50, i)] = &fstest.MapFile{Data: []byte(text + "  action: Block\n")}
	}
	return files
}

// BenchmarkParse is a repository of 1,000 files read anew, and with one of them changed.
func BenchmarkParse(b *testing.B) {
	files := fleetFiles(1000)
	bytes := 0
	for _, f := range files {
		bytes += len(f.Data)
	}
	b.Run("cold", func(b *testing.B) {
		b.SetBytes(int64(bytes))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Parse(files); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("one-changed", func(b *testing.B) {
		set, err := Parse(files)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(bytes))
		b.ReportAllocs()
		const name = "team-7/p-7.yaml"
		original := files[name].Data
		for b.Loop() {
			files[name].Data = append([]byte("# changed\n"), original...)
			if set, err = ParseAfter(set, files); err != nil {
				b.Fatal(err)
			}
		}
	})
}
