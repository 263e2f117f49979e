// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package cosign tests releases against the stock cosign command, versions 2 and 3: either tool signs what the
// other verifies, with the flags that the documentation gives, and the shapes that muster refuses are made by
// the real tools. The first run builds both commands, which takes some minutes.
package cosign
