// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// initrd returns an initramfs with the guest program as /init and the early modules.
func initrd(guest, early string) ([]byte, error) {
	var c cpio
	for _, dir := range []string{"proc", "sys", "dev", "root", "modules"} {
		c.add(dir, 0o040755, nil)
	}
	program, err := os.ReadFile(guest)
	if err != nil {
		return nil, err
	}
	c.add("init", 0o100755, program)
	modules, err := filepath.Glob(filepath.Join(early, "*.ko"))
	if err != nil {
		return nil, err
	}
	slices.Sort(modules)
	for _, path := range modules {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		c.add("modules/"+filepath.Base(path), 0o100644, content)
	}
	c.add("TRAILER!!!", 0, nil)
	return c.buf.Bytes(), nil
}

// cpio writes the "newc" format, the only one that the kernel unpacks.
type cpio struct {
	buf   bytes.Buffer
	inode int
}

func (c *cpio) add(name string, mode uint32, content []byte) {
	c.inode++
	fmt.Fprintf(&c.buf, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	c.pad()
	c.buf.Write(content)
	c.pad()
}

func (c *cpio) pad() {
	for c.buf.Len()%4 != 0 {
		c.buf.WriteByte(0)
	}
}
