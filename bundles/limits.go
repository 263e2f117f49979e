// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

// The limits of a release. They are far above any real fleet's and far below what hurts a host; a release
// that exceeds one is refused by the name "limits".
const (
	maxReleaseDoc = 4 << 20  // bytes of release.json
	maxFreshDoc   = 16 << 10 // bytes of fresh.json
	maxSignature  = 64 << 10 // bytes of one signature bundle; a keyed one has about 400
	maxSignatures = 64       // signature files read
	maxSigners    = 64       // signers of a trust file
	// maxSuccessions is how many versions of the trust file a release carries for hosts that slept.
	maxSuccessions = 256
	maxFiles       = 20_000
	maxFileBytes   = 8 << 20
	maxTotalBytes  = 64 << 20
	maxDocuments   = 1024 // files below .muster that an archive may hold
	maxDepth       = 16
	maxPath        = 512
	// maxCounter is the largest integer that RFC 8785 can write exactly.
	maxCounter = 1<<53 - 1
	// maxJump is how far a sequence may be ahead of the mark within one epoch: a host asleep for a year in
	// a fleet that publishes 25 times a day still follows; a stolen key cannot exhaust the numbers at once.
	maxJump = 10_000
)
