// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package attack attacks a host: each row of its table plays somebody who controls the source, a key or the host's
// disk, over the wire, against the agent's whole loop. The attack must get its named error, the last good release
// must stay in force, and the same thing done by those who may do it must be accepted afterwards.
//
// Git is a real git-http-backend behind HTTP, the registry go-containerregistry's own. Only the kernel is pretended
// (enforcetest.Fake): what a real one does with hostile input is test/hostile's business.
package attack
