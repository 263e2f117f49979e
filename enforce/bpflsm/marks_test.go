// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/test/vm"
)

// TestMarksOfChangedRules publishes random rulesets while files, directories, symlinks and mounts move, and compares the marks
// that publishing leaves, where it looks for the files of new names only, with those of looking for all of them.
func TestMarksOfChangedRules(t *testing.T) {
	vm.Require(t, vm.BPFLSM)
	g := newGuard(t)
	m := &markWorld{t: t, dir: publicDir(t), r: rand.New(rand.NewPCG(1, 2))}
	m.tool = copySelf(t, m.dir+"/tool")
	t.Cleanup(m.unmount)
	for _, path := range m.names() {
		write(t, path, "x", 0o644)
	}
	key := must(g.key())
	few, all, rulesets := 0, 0, 0
	for range 150 {
		for range m.r.IntN(4) {
			m.change()
		}
		rs := m.ruleset()
		image := must(render(rs, key))
		g.Backend.mu.Lock()
		followed := must(g.followed(image))
		g.Backend.mu.Unlock()
		g.apply(t, enforce.StepPublish{Ruleset: rs})
		left := g.marksIn(t, image)
		g.Backend.mu.Lock()
		err := g.markExisting(t.Context(), g.Backend.marked)
		g.Backend.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if complete := g.marksIn(t, image); !maps.EqualFunc(left, complete, slices.Equal) {
			t.Fatalf("ruleset %d, of which all names were followed: %v. Marks that it left:\n%v\nof all names:\n%v\nafter %q", rulesets, followed, left, complete, m.did)
		}
		rulesets++
		m.did = nil
		if followed {
			few++
		} else {
			all++
		}
	}
	t.Logf("%d rulesets: for %d only new names were looked for, for %d all", rulesets, few, all)
	if few < 20 || all < 20 {
		t.Error("one of them was hardly tried")
	}
}

// markWorld is some files that come and go.
type markWorld struct {
	t       *testing.T
	dir     string
	tool    string // what changes names: every rule lets it
	r       *rand.Rand
	mounted bool
	did     []string
}

// names are what rules may protect.
func (m *markWorld) names() []string {
	var list []string
	for _, dir := range []string{"one", "two"} {
		for n := range 8 {
			list = append(list, fmt.Sprintf("%s/%s/file-%d", m.dir, dir, n))
		}
	}
	return list
}

// ruleset protects some of the names, mostly those that the one before does.
func (m *markWorld) ruleset() *enforce.Ruleset {
	list := []enforce.Rule{block("/nothing/there")}
	for _, path := range m.names() {
		switch m.r.IntN(3) {
		case 0:
			list = append(list, block(path), rule(policies.ClassFile, policies.ActionAllow, policies.ObjectPath, path, m.tool))
		case 1:
			list = append(list, rule(policies.ClassProcess, policies.ActionBlock, policies.ObjectPath, path))
		}
	}
	return rules(enforce.ModeEnforce, enforce.PostureAudit, list...)
}

// change does something that may give a protected name to another file. What cannot be done now is not.
func (m *markWorld) change() {
	list := m.names()
	a, b := list[m.r.IntN(len(list))], list[m.r.IntN(len(list))]
	free := fmt.Sprintf("%s/free-%d", m.dir, m.r.IntN(4))
	one, two, other := m.dir+"/one", m.dir+"/two", m.dir+"/other"
	var operations []string
	switch m.r.IntN(26) {
	case 0:
		operations = []string{"exchange " + one + " " + two}
	case 1:
		operations = []string{"rename " + two + " " + other, "symlink " + other + " " + two}
	case 2:
		operations = []string{"unlink " + two, "rename " + other + " " + two} // what is unlinked is the symlink
	case 3:
		m.mount()
		return
	case 4:
		m.unmount()
		return
	case 5, 6, 7:
		operations = []string{"create " + a}
	case 8, 9, 10:
		operations = []string{"create " + free}
	case 11, 12:
		operations = []string{"unlink " + a}
	case 13, 14:
		operations = []string{"link " + free + " " + a}
	case 15, 16:
		operations = []string{"link " + a + " " + b}
	case 17, 18, 19, 20:
		operations = []string{"rename " + free + " " + a}
	case 21, 22:
		operations = []string{"rename " + a + " " + free}
	default:
		operations = []string{"exchange " + a + " " + b}
	}
	m.did = append(m.did, fmt.Sprint(operations, tryAs(m.t, m.tool, operations...)))
}

func (m *markWorld) mount() {
	if !m.mounted && unix.Mount("none", m.dir+"/one", "tmpfs", 0, "") == nil {
		m.mounted = true
		m.did = append(m.did, "mount")
	}
}

func (m *markWorld) unmount() {
	if m.mounted && unix.Unmount(m.dir+"/one", unix.MNT_DETACH) == nil {
		m.mounted = false
		m.did = append(m.did, "unmount")
	}
}

// marksIn are the marks that mean something to an image, by file.
func (g *guard) marksIn(t *testing.T, image *Image) map[bpf.MusterMarkKey][]uint64 {
	t.Helper()
	found := map[bpf.MusterMarkKey][]uint64{}
	err := eachMark(g.maps[bpf.MusterMapMarks], func(key bpf.MusterMarkKey, m *bpf.MusterMark) {
		for _, hash := range m.Paths {
			if image.Protected[hash] != "" {
				found[key] = append(found[key], hash)
			}
		}
		slices.Sort(found[key])
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
