// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/muster-fleet/muster/bpf"
)

// pins is the directory of one layout of the maps. Agents whose maps have another layout use another one.
type pins struct {
	root string
	dir  string
}

func newPins(root string, spec *ebpf.CollectionSpec) pins {
	return pins{root: root, dir: filepath.Join(root, layoutName(spec))}
}

// layoutName tells apart what cannot be shared: the kinds and sizes of the maps, and the image's layout.
func layoutName(spec *ebpf.CollectionSpec) string {
	h := sha256.New()
	fmt.Fprintln(h, bpf.MusterMagicIMAGE_LAYOUT, bpf.MusterCounterCOUNTERS)
	for _, name := range mapNames(spec) {
		m := spec.Maps[name]
		fmt.Fprintln(h, name, m.Type, m.KeySize, m.ValueSize, m.Flags)
		if inner := m.InnerMap; inner != nil {
			fmt.Fprintln(h, inner.Type, inner.KeySize, inner.ValueSize, inner.Flags)
		}
	}
	return "v" + hex.EncodeToString(h.Sum(nil)[:6])
}

// mapNames are the maps that are pinned: all but those of constants.
func mapNames(spec *ebpf.CollectionSpec) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		if name[0] != '.' {
			names = append(names, name)
		}
	}
	return names
}

func (p pins) mapPath(name string) string  { return filepath.Join(p.dir, "map_"+name) }
func (p pins) linkPath(name string) string { return filepath.Join(p.dir, "link_"+name) }

// nextPath is where a link waits during an upgrade.
func (p pins) nextPath(name string) string { return p.linkPath(name) + "_next" }

func (p pins) make() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory for pins: %w", err)
	}
	return nil
}

// openMap opens a pinned map; nil when it is not there.
func (p pins) openMap(name string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(p.mapPath(name), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open pinned map %s: %w", name, recognition(err))
	}
	return m, nil
}

// openLink opens a pinned link; nil when it is not there.
func (p pins) openLink(name string) (link.Link, error) {
	l, err := link.LoadPinnedLink(p.linkPath(name), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open pinned link %s: %w", name, err)
	}
	return l, nil
}

// extras are pins in the directory that no agent of this layout leaves there on purpose: those of an attach
// that was cut short, and whatever somebody put there.
func (p pins) extras(spec *ebpf.CollectionSpec) ([]string, error) {
	entries, err := os.ReadDir(p.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	known := map[string]bool{}
	for _, name := range mapNames(spec) {
		known[filepath.Base(p.mapPath(name))] = true
	}
	for _, program := range attached {
		known[filepath.Base(p.linkPath(program.name))] = true
	}
	var extra []string
	for _, e := range entries {
		if !known[e.Name()] {
			extra = append(extra, filepath.Join(p.dir, e.Name()))
		}
	}
	return extra, nil
}

// removeExtras removes what extras lists.
func (p pins) removeExtras(spec *ebpf.CollectionSpec) error {
	extra, err := p.extras(spec)
	for _, path := range extra {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// others are the directories of other layouts, the one that was made last first.
func (p pins) others() ([]pins, error) {
	entries, err := os.ReadDir(p.root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	made := map[pins]time.Time{}
	for _, e := range entries {
		info, err := e.Info()
		if dir := filepath.Join(p.root, e.Name()); err == nil && dir != p.dir && e.IsDir() {
			made[pins{p.root, dir}] = info.ModTime()
		}
	}
	return slices.SortedFunc(maps.Keys(made), func(a, b pins) int { return made[b].Compare(made[a]) }), nil
}

// removeOthers removes the pins of every other layout: their links detach.
func (p pins) removeOthers() error {
	others, err := p.others()
	for _, o := range others {
		err = errors.Join(err, os.RemoveAll(o.dir))
	}
	return err
}

func (p pins) removeAll() error {
	if err := os.RemoveAll(p.root); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}
