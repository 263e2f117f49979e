// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io/fs"
	"testing/fstest"
)

// blobs shows a commit's files as a file system.
func blobs(files map[string][]byte) fs.FS {
	out := fstest.MapFS{}
	for name, data := range files {
		out[name] = &fstest.MapFile{Data: data, Mode: 0o444}
	}
	return out
}
