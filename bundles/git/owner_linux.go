// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package git

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkOwner wants a secret to belong to root or to the user that reads it.
func checkOwner(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && st.Uid != 0 && int(st.Uid) != os.Getuid() {
		return fmt.Errorf("credentials: %s belongs to user %d", path, st.Uid)
	}
	return nil
}
