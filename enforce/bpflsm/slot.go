// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"

	"github.com/muster-fleet/muster/bpf"
)

// hostSlot is the slot of the host subject.
const hostSlot = uint32(0)

// publish puts an image into a slot: filled aside, swapped by one update. Decisions under way keep the
// image they took; the kernel frees it behind them.
func publish(slots *ebpf.Map, inner *ebpf.MapSpec, image []byte) error {
	spec := inner.Copy()
	spec.Name = "image"
	spec.MaxEntries = uint32(len(image) / pageBytes)
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return fmt.Errorf("make a map of %d pages: %w", spec.MaxEntries, err)
	}
	defer m.Close()
	for page := range spec.MaxEntries {
		if err := m.Put(page, image[int(page)*pageBytes:][:pageBytes]); err != nil {
			return fmt.Errorf("fill page %d: %w", page, err)
		}
	}
	if err := slots.Put(hostSlot, m); err != nil {
		return fmt.Errorf("swap the slot: %w", err)
	}
	return nil
}

// published reads the image in a slot back; nil when there is none.
func published(slots *ebpf.Map) ([]byte, error) { return publishedPages(slots, math.MaxUint32) }

// publishedHeader reads its header only; nil when there is none.
func publishedHeader(slots *ebpf.Map) (*bpf.MusterImageHeader, error) {
	page, err := publishedPages(slots, 1)
	if page == nil || err != nil {
		return nil, err
	}
	return view[bpf.MusterImageHeader](page, 0, 0), nil
}

// publishedPages reads at most so many pages.
func publishedPages(slots *ebpf.Map, most uint32) ([]byte, error) {
	var id ebpf.MapID
	if err := slots.Lookup(hostSlot, &id); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read the slot: %w", err)
	}
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open the slot's map: %w", err)
	}
	defer m.Close()
	pages := min(most, m.MaxEntries())
	image := make([]byte, 0, int(pages)*pageBytes)
	for page := range pages {
		var bytes []byte
		if bytes, err = m.LookupBytes(page); err != nil || len(bytes) != pageBytes {
			return nil, fmt.Errorf("read page %d: %w", page, errors.Join(err, errShort))
		}
		image = append(image, bytes...)
	}
	return image, nil
}

var errShort = errors.New("short page")

// withdraw empties a slot.
func withdraw(slots *ebpf.Map) error {
	if err := slots.Delete(hostSlot); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("empty the slot: %w", err)
	}
	return nil
}

// innerSpec is the kind of map that the slots take.
func innerSpec(spec *ebpf.CollectionSpec) *ebpf.MapSpec {
	return spec.Maps[bpf.MusterMapSlots].InnerMap
}
