// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"cmp"
	"context"
	"io/fs"
	"strings"
)

// WalkRelease calls f for each regular file of a release in a directory. Anything else in it, a link above all, is an
// error, and so is more than a release may have.
func WalkRelease(ctx context.Context, fsys fs.FS, f func(name string, info fs.FileInfo) error) error {
	var files int
	var total int64
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return cmp.Or(err, ctx.Err())
		}
		if d.IsDir() {
			if strings.Count(name, "/") > maxDepth+1 {
				return refuse(ErrLimits, "%q is deeper than %d", name, maxDepth)
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return refuse(ErrPath, "%q is not a regular file", name)
		}
		files++
		if total += info.Size(); info.Size() > maxFileBytes || total > maxTotalBytes+maxReleaseDoc || files > maxFiles+maxDocuments {
			return refuse(ErrLimits, "more than %d files, %d bytes in one or %d in all", maxFiles, maxFileBytes, maxTotalBytes)
		}
		return f(name, info)
	})
}

// ReadRelease reads a release in a directory into memory, within the limits.
func ReadRelease(ctx context.Context, fsys fs.FS) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := WalkRelease(ctx, fsys, func(name string, info fs.FileInfo) error {
		data, err := readBounded(fsys, name, info.Size())
		if err == nil && int64(len(data)) > info.Size() {
			err = refuse(ErrLimits, "%q grows while it is read", name)
		}
		out[name] = data
		return err
	})
	return out, err
}
