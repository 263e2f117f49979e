// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"unsafe"

	"github.com/muster-fleet/muster/bpf"
)

const (
	unitBytes    = int(bpf.MusterLimitIMAGE_UNIT)
	pageBytes    = int(bpf.MusterLimitIMAGE_PAGE)
	unitsPerPage = int(bpf.MusterLimitUNITS_PER_PAGE)
)

// ref is a reference within an image: the number of a 16-byte unit. 0, where the header is, means none.
type ref uint32

// layout builds the bytes of an image. Units are zero until they are written.
type layout struct {
	bytes []byte
}

// reserve sets units aside that do not straddle a page.
func (l *layout) reserve(units int) ref {
	at := len(l.bytes) / unitBytes
	if within := at % unitsPerPage; within+units > unitsPerPage {
		at += unitsPerPage - within
	}
	l.grow(at + units)
	return ref(at)
}

// reserveTable sets units aside for entries of one unit or half a unit each, which are read one by one.
func (l *layout) reserveTable(units int) ref {
	at := len(l.bytes) / unitBytes
	l.grow(at + units)
	return ref(at)
}

func (l *layout) grow(units int) {
	l.bytes = append(l.bytes, make([]byte, units*unitBytes-len(l.bytes))...)
}

// view is the T that starts offset bytes behind a unit. The generated types are those of the kernel side,
// little-endian as the object file is.
func view[T any](image []byte, at ref, offset int) *T {
	var zero T
	from := int(at)*unitBytes + offset
	return (*T)(unsafe.Pointer(unsafe.SliceData(image[from : from+int(unsafe.Sizeof(zero))])))
}
