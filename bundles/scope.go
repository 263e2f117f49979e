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
	}
	return fmt.Sprintf("%d policies, all inside", len(list)), nil
}

// Scoped says that the trust limits what its releases may hold.
func (t *Trust) Scoped() bool { return len(t.Scope.Kinds) > 0 || len(t.Scope.Namespaces) > 0 }

// lint parses what is about to be published as the hosts will.
func (o *PublishOptions) lint(files fs.FS) error {
	_, err := policies.Parse(files)
	if err == nil && o.Check != nil {
		err = o.Check(files)
	}
	if err != nil {
		return refuse(ErrPublishBlocked, "the policies have problems").because(err).withHint("muster lint shows them all")
	}
	return nil
}
