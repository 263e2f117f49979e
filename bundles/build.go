// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Content is what a release is made from: a commit's blobs under the project's root.
type Content struct {
	Files      map[string][]byte
	Commit     string
	Repository string
	Issued     time.Time // the commit's time
}

// fileList lists files in the order of a release.
func fileList(files map[string][]byte) []ReleaseFile {
	out := make([]ReleaseFile, 0, len(files))
	for p, data := range files {
		sum := sha256.Sum256(data)
		out = append(out, ReleaseFile{Path: p, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(out, func(a, b ReleaseFile) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// BuildRelease writes release.json. The same content and sequence give the same bytes, wherever and whenever
// it is built; what it writes, Verify reads.
func BuildRelease(t *Trust, c Content, sequence int64, acknowledgeRemoval bool) ([]byte, error) {
	doc, err := canonical(&Release{
		Schema:             ReleaseSchema,
		Name:               t.Fleet,
		Channel:            t.Channel,
		Epoch:              t.Epoch,
		Sequence:           sequence,
		Issued:             c.Issued.UTC().Truncate(time.Second),
		Source:             ReleaseSource{Commit: c.Commit, Repository: c.Repository},
		Files:              fileList(c.Files),
		AcknowledgeRemoval: acknowledgeRemoval,
	})
	if err != nil {
		return nil, err
	}
	if len(doc) > maxReleaseDoc {
		return nil, refuse(ErrLimits, "release.json would be larger than %d bytes", maxReleaseDoc)
	}
	if _, err := decodeRelease(doc); err != nil {
		return nil, err
	}
	return doc, nil
}

// BuildFresh writes fresh.json for a release document.
func BuildFresh(doc []byte, sequence int64, issued time.Time, valid time.Duration) ([]byte, error) {
	issued = issued.UTC().Truncate(time.Second)
	return canonical(&Fresh{
		Schema:   FreshSchema,
		Release:  DigestOf(doc),
		Sequence: sequence,
		Issued:   issued,
		Expires:  issued.Add(valid).Truncate(time.Second),
	})
}
