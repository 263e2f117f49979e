// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"fmt"
	"io/fs"
	"slices"

	"github.com/muster-fleet/muster/policies"
)

// checkScope refuses a release that reaches outside the trust's scope. It runs after every byte has matched
// its signed digest; a release whose policies cannot be read cannot be shown to lie inside.
func (e *examination) checkScope() (string, error) {
	s := e.trust.Scope
	if !e.trust.Scoped() {
		return "unlimited", nil
	}
	set, err := e.v.Policies(e.raw.Earlier)
	if err != nil {
		return "", refuse(ErrOutOfScope, "the policies cannot be read, so their scope cannot be shown").because(err)
	}
	list := set.Policies()
	for _, p := range list {
		if len(s.Kinds) > 0 && !slices.Contains(s.Kinds, string(p.Kind)) {
			return "", refuse(ErrOutOfScope, "%s: %s is of a kind outside the scope %v", p.Position, p.ID, s.Kinds)
		}
		if len(s.Namespaces) > 0 && !slices.Contains(s.Namespaces, p.Namespace) {
			return "", refuse(ErrOutOfScope, "%s: %s lies outside the namespaces %v", p.Position, p.ID, s.Namespaces)
		}
		if len(s.Hosts) > 0 && !p.ConfinedTo(s.Hosts) {
			return "", refuse(ErrOutOfScope, "%s: %s may select other hosts than %v", p.Position, p.ID, s.Hosts).
				withHint("name hosts of the scope in its nodeSelector: kubernetes.io/hostname, or kubernetes.io/hostnamereg")
		}
	}
	return fmt.Sprintf("%d policies, all inside", len(list)), nil
}

// Scoped says that the trust limits what its releases may hold.
func (t *Trust) Scoped() bool {
	return len(t.Scope.Kinds) > 0 || len(t.Scope.Namespaces) > 0 || len(t.Scope.Hosts) > 0
}

// within says that this scope permits no more than another.
func (s *Scope) within(outer *Scope) bool {
	return narrows(s.Kinds, outer.Kinds, equal) && narrows(s.Namespaces, outer.Namespaces, equal) &&
		narrows(s.Hosts, outer.Hosts, policies.HostPattern.Covers)
}

func equal(a, b string) bool { return a == b }

// narrows says that each entry of a list is covered by one of another; an empty list permits everything.
func narrows[T any](inner, outer []T, covers func(outer, inner T) bool) bool {
	if len(outer) == 0 {
		return true
	}
	return len(inner) > 0 && !slices.ContainsFunc(inner, func(in T) bool {
		return !slices.ContainsFunc(outer, func(out T) bool { return covers(out, in) })
	})
}

// lint parses what is about to be published as the hosts will.
func (o *PublishOptions) lint(files fs.FS) error {
	unsupported, err := policies.UnsupportedIn(files)
	if err != nil {
		return err
	}
	if len(unsupported) > 0 {
		return refuse(ErrUnsupported, "the content asks for what this version does not do").because(unsupported).withHint(unsupported.Hint())
	}
	_, err = policies.Parse(files)
	if err == nil && o.Check != nil {
		err = o.Check(files)
	}
	if err != nil {
		return refuse(ErrPublishBlocked, "the policies have problems").because(err).withHint("muster lint shows them all")
	}
	return nil
}
