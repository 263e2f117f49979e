// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/muster-fleet/muster/bpf"
)

// lasting are the maps that an upgrade takes along when the layout of others has changed: what a process came from, and
// which files have had a protected name, cannot be read again from anywhere. The very maps are taken, so that the
// programs of both agents keep them while both decide.
var lasting = []string{bpf.MusterMapLabels, bpf.MusterMapChains, bpf.MusterMapMarks}

// lastingLayout tells apart what their entries say: the names, places and sizes of everything in them. Who changes the
// meaning of a field gives it another name.
func lastingLayout(spec *ebpf.CollectionSpec) uint32 {
	h := sha256.New()
	for _, name := range lasting {
		spell(h, spec.Maps[name].Key)
		spell(h, spec.Maps[name].Value)
	}
	return binary.LittleEndian.Uint32(h.Sum(nil))
}

// spell writes a type of C out, members and all.
func spell(w io.Writer, t btf.Type) {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		for _, m := range t.Members {
			fmt.Fprintln(w, m.Name, m.Offset)
			spell(w, m.Type)
		}
	case *btf.Array:
		fmt.Fprintln(w, "array", t.Nelems)
		spell(w, t.Type)
	case *btf.Int:
		fmt.Fprintln(w, "integer", t.Size)
	default:
		fmt.Fprintf(w, "%T\n", t)
	}
}

// inherit takes the lasting maps of an agent of another layout, where this layout has none yet. One that cannot be
// understood is left: processes are then classified by their executables, and files known by their names.
func (b *Backend) inherit() error {
	for _, name := range lasting {
		if b.maps[name] != nil {
			return nil
		}
	}
	others, err := b.pins.others()
	if err != nil {
		return err
	}
	for _, other := range others {
		taken, key, err := other.openLasting(b.spec)
		if err != nil {
			b.log.Warn("what processes came from is not taken over from another layout", "pins", other.dir, "error", err)
			continue
		}
		maps.Copy(b.maps, taken)
		b.inherited = key
		b.log.Info("labels and marks taken over from another layout", "pins", other.dir)
		return nil
	}
	return nil
}

var errOtherMeaning = errors.New("its labels and marks have another meaning")

// openLasting opens the lasting maps and reads the key of their entries.
func (p pins) openLasting(spec *ebpf.CollectionSpec) (taken map[string]*ebpf.Map, key hashKey, err error) {
	s, err := p.settings()
	if err != nil {
		return nil, key, err
	}
	if s.Layout != lastingLayout(spec) || s.HashKey == ([2]uint64{}) {
		return nil, key, errOtherMeaning
	}
	taken = map[string]*ebpf.Map{}
	defer func() {
		if err != nil {
			closeMaps(taken)
		}
	}()
	for _, name := range lasting {
		m, err := p.openMap(name)
		if err != nil {
			return nil, key, err
		}
		if m == nil {
			return nil, key, fmt.Errorf("%w: map %s", ErrNotAttached, name)
		}
		taken[name] = m
		wanted := spec.Maps[name].Copy()
		wanted.MaxEntries = m.MaxEntries()
		if err := wanted.Compatible(m); err != nil {
			return nil, key, fmt.Errorf("map %s: %w", name, err)
		}
	}
	return taken, s.HashKey, nil
}

// settings reads what another layout's settings have in common with this one's: their beginning.
func (p pins) settings() (s bpf.MusterSettings, err error) {
	config, err := p.openMap(bpf.MusterMapConfig)
	if err != nil {
		return s, err
	}
	if config == nil {
		return s, fmt.Errorf("%w: map %s", ErrNotAttached, bpf.MusterMapConfig)
	}
	defer config.Close()
	value, err := config.LookupBytes(uint32(0))
	if err != nil {
		return s, fmt.Errorf("read settings: %w", err)
	}
	whole := make([]byte, unsafe.Sizeof(s))
	copy(whole, value)
	return *view[bpf.MusterSettings](whole, 0, 0), nil
}
