// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package reconciler

import (
	"maps"
	"testing"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/inventory"
)

// links is a host of which nothing matters but its symlinks.
type links map[string]string

func (links) Node() (inventory.Node, bool)   { return inventory.Node{}, true }
func (links) Changed() <-chan struct{}       { return nil }
func (links) Protect() []enforce.ProtectPair { return nil }
func (l links) Resolve(paths []string) map[string]string {
	found := map[string]string{}
	for _, p := range paths {
		if to, leads := l[p]; leads {
			found[p] = to
		}
	}
	return found
}

// TestLeadElsewhere: names that moved matter when a path of the rulesets in force or beside them resolves differently.
func TestLeadElsewhere(t *testing.T) {
	t.Parallel()
	host := links{"/sbin/": "/usr/sbin/", "/elsewhere": "/there"}
	l := &Loop{deps: Deps{Host: host}}
	if l.leadElsewhere() {
		t.Error("before there is a ruleset")
	}
	paths := []string{"/etc/motd", "/sbin/"}
	inForce := compiled{input: &compileInput{paths: paths, aliases: maps.Clone(host.Resolve(paths))}}
	for _, place := range []*compiled{&l.know.compiled, &l.know.beside} {
		*place = inForce
		if l.leadElsewhere() {
			t.Error("nothing changed")
		}
		host["/elsewhere"] = "/anywhere"
		if l.leadElsewhere() {
			t.Error("a link that no path goes through changed")
		}
		host["/etc/motd"] = "/run/motd"
		if !l.leadElsewhere() {
			t.Error("a path leads through a new link")
		}
		delete(host, "/etc/motd")
		host["/sbin/"] = "/opt/sbin/"
		if !l.leadElsewhere() {
			t.Error("a link leads elsewhere")
		}
		host["/sbin/"] = "/usr/sbin/"
		*place = compiled{}
	}
}
