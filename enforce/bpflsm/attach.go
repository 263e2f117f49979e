// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/muster-fleet/muster/bpf"
)

// attach makes maps, programs, links and pins those of this agent. When the pinned links already hold this
// agent's programs, they are adopted as they are. Else a fresh copy of every program is attached beside what
// is there, with the same maps, labelling first; only then are the old links let go. Meanwhile both decide,
// and a denial by either is one.
func (b *Backend) attach(ctx context.Context) error {
	if err := b.findMaps(); err != nil {
		return err
	}
	wanted, err := b.demanded()
	if err != nil {
		return err
	}
	adopted, err := b.adoptable(wanted)
	if err != nil {
		return err
	}
	fresh, err := b.load(ctx, adopted, wanted)
	if err != nil {
		return err
	}
	if !adopted {
		err = b.replace(ctx, fresh)
	}
	if err == nil {
		err = b.takeOver(fresh, adopted, wanted)
	}
	if err != nil {
		fresh.close()
		return err
	}
	if b.loaded != nil {
		b.loaded.close()
	}
	b.loaded = fresh
	if err := b.retire(wanted | b.constant()); err != nil {
		return err
	}
	b.log.Info("programs attached", "adopted", adopted, "programs", len(fresh.links))
	if _, err := runIterator(ctx, fresh.Programs[bpf.MusterProgLabelExisting]); err != nil {
		return err
	}
	folds := foldSpec(b.spec)
	if err := prepareFolds(b.maps[bpf.MusterMapFolds], folds); err != nil {
		return err
	}
	if err := b.reader.attach(b.maps, folds); err != nil {
		return err
	}
	return b.guard(ctx)
}

// load loads what is in demand, or beside an adopted set the iterators.
func (b *Backend) load(ctx context.Context, adopted bool, wanted demand) (*programSet, error) {
	h, err := b.host()
	if err != nil {
		return nil, err
	}
	what := loading{iterators: true, instance: randomNumber()}
	if !adopted {
		if what.programs, err = h.supported(wanted); err != nil {
			return nil, err
		}
	}
	return load(ctx, h, b.maps, b.ringBytes, what)
}

// findMaps makes ready what the programs will work on.
func (b *Backend) findMaps() error {
	if err := b.pins.make(); err != nil {
		return err
	}
	if err := b.openMaps(); err != nil {
		return err
	}
	if b.loaded == nil && b.maps[bpf.MusterMapMarks] != nil {
		b.kept = nil // no boot came between
	}
	return b.restoreSettings()
}

// openMaps opens the maps in force: those pinned, else those this process still holds, else those of the
// programs that are still linked. What is nowhere is left to load.
func (b *Backend) openMaps() error {
	held := b.maps
	if held == nil {
		held = map[string]*ebpf.Map{}
	}
	var linked map[string]*ebpf.Map
	for _, name := range mapNames(b.spec) {
		m, err := b.pins.openMap(name)
		if err != nil {
			return err
		}
		if m == nil {
			if held[name] == nil && linked == nil {
				if linked, err = b.linkedMaps(); err != nil {
					return err
				}
			}
			if held[name] == nil && linked[name] != nil {
				held[name] = linked[name]
			}
			continue
		}
		if had := held[name]; had != nil {
			_ = had.Close()
		}
		held[name] = m
	}
	b.maps = held
	return b.inherit()
}

// linkedMaps are the maps that the programs of the pinned links use, by name.
func (b *Backend) linkedMaps() (map[string]*ebpf.Map, error) {
	found := map[string]*ebpf.Map{}
	for _, p := range attached {
		program, err := b.linkedProgram(p.name)
		if err != nil {
			return nil, err
		}
		if program == nil {
			continue
		}
		info, err := program.Info()
		_ = program.Close()
		if err != nil {
			return nil, fmt.Errorf("read program %s: %w", p.name, err)
		}
		ids, _ := info.MapIDs()
		for _, id := range ids {
			m, err := ebpf.NewMapFromID(id)
			if err != nil {
				continue // gone meanwhile
			}
			mi, err := m.Info()
			if err != nil || b.spec.Maps[mi.Name] == nil || found[mi.Name] != nil {
				_ = m.Close()
				continue
			}
			found[mi.Name] = m
		}
	}
	return found, nil
}

// linkedProgram is the program of a pinned link; nil when there is no such link.
func (b *Backend) linkedProgram(name string) (*ebpf.Program, error) {
	l, err := b.pins.openLink(name)
	if l == nil || err != nil {
		return nil, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return nil, fmt.Errorf("read link %s: %w", name, err)
	}
	program, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return nil, fmt.Errorf("open program of link %s: %w", name, err)
	}
	return program, nil
}

// adoptable says whether every pinned link holds the program that this agent would attach, and works on the
// pinned maps. After an attach that was cut short two loadings may be mixed, of which one keeps silent: then
// there are extra pins, and nothing is adopted.
func (b *Backend) adoptable(demanded demand) (bool, error) {
	if extra, err := b.pins.extras(b.spec); err != nil || len(extra) > 0 {
		return false, err
	}
	for _, name := range mapNames(b.spec) {
		m, err := b.pins.openMap(name)
		if m == nil || err != nil {
			return false, err
		}
		_ = m.Close()
	}
	wanted, tags, err := b.reference(demanded)
	if err != nil || tags == nil {
		return false, err
	}
	for _, p := range wanted {
		condition, err := b.linkCondition(p, tags[p.name])
		if err != nil || condition != "" {
			return false, err
		}
	}
	return b.usesMap(bpf.MusterProgExecCheck, b.maps[bpf.MusterMapSlots])
}

// usesMap says whether the linked program works on this very map.
func (b *Backend) usesMap(name string, m *ebpf.Map) (bool, error) {
	program, err := b.linkedProgram(name)
	if program == nil || err != nil {
		return false, err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return false, fmt.Errorf("read program %s: %w", name, err)
	}
	wanted, err := m.Info()
	if err != nil {
		return false, fmt.Errorf("read map %s: %w", m, err)
	}
	id, _ := wanted.ID()
	ids, _ := info.MapIDs()
	if slices.Contains(ids, id) {
		return true, nil
	}
	return false, nil
}

// replace attaches the fresh programs, pins them aside, and puts their pins over the old ones. Until all are attached it
// ends with ctx, and what was in force goes on as it was.
func (b *Backend) replace(ctx context.Context, fresh *programSet) error {
	if err := fresh.initialise(b.inherited, lastingLayout(b.spec)); err != nil {
		return err
	}
	if err := b.pinAside(ctx, fresh); err != nil {
		return err
	}
	for _, name := range mapNames(b.spec) {
		if err := b.pinMap(name, fresh.Maps[name]); err != nil {
			return err
		}
	}
	if err := fresh.speak(); err != nil {
		return err
	}
	if err := b.pinOver(fresh); err != nil {
		return err
	}
	return errors.Join(b.pins.removeExtras(b.spec), fresh.sign())
}

// pinAside attaches the set's programs and pins their links beside those in force. When ctx ends, or it fails, those
// in force are as they were, and there are no others.
func (b *Backend) pinAside(ctx context.Context, fresh *programSet) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, b.unpinAside(fresh))
		}
	}()
	for _, p := range fresh.wanted {
		if err := ctx.Err(); err != nil {
			return err
		}
		l, err := p.attach(fresh.Programs[p.name])
		if err != nil {
			return fmt.Errorf("attach %s: %w", p.name, err)
		}
		fresh.links[p.name] = l
		next := b.pins.nextPath(p.name)
		if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove a left-over pin: %w", err)
		}
		if err := l.Pin(next); err != nil {
			return fmt.Errorf("pin link %s: %w", p.name, err)
		}
	}
	return nil
}

func (b *Backend) unpinAside(fresh *programSet) error {
	var all error
	for _, p := range fresh.wanted {
		if err := os.Remove(b.pins.nextPath(p.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			all = errors.Join(all, fmt.Errorf("unpin what was attached aside: %w", err))
		}
	}
	return all
}

// pinOver puts the links that were pinned aside in the place of those in force.
func (b *Backend) pinOver(fresh *programSet) error {
	for _, p := range fresh.wanted {
		if err := os.Rename(b.pins.nextPath(p.name), b.pins.linkPath(p.name)); err != nil {
			return fmt.Errorf("pin link %s: %w", p.name, err)
		}
	}
	return nil
}

func (b *Backend) pinMap(name string, m *ebpf.Map) error {
	pinned, err := b.pins.openMap(name)
	if err != nil {
		return err
	}
	if pinned != nil {
		return pinned.Close()
	}
	// A clone, because a map remembers one path only.
	clone, err := m.Clone()
	if err != nil {
		return fmt.Errorf("pin map %s: %w", name, err)
	}
	defer clone.Close()
	if err := clone.Pin(b.pins.mapPath(name)); err != nil {
		return fmt.Errorf("pin map %s: %w", name, err)
	}
	return nil
}

// takeOver makes the set's maps those in force and this process the agent. The links of an adopted set are
// held too, so that an unpinned one is not lost.
func (b *Backend) takeOver(fresh *programSet, adopted bool, demanded demand) error {
	maps := map[string]*ebpf.Map{}
	for _, name := range mapNames(b.spec) {
		clone, err := fresh.Maps[name].Clone()
		if err != nil {
			return fmt.Errorf("keep map %s: %w", name, err)
		}
		maps[name] = clone
	}
	for _, m := range b.maps {
		_ = m.Close()
	}
	b.maps, b.around = maps, nil
	if adopted {
		h, err := b.host()
		if err != nil {
			return err
		}
		wanted, err := h.supported(demanded)
		if err != nil {
			return err
		}
		for _, p := range wanted {
			l, err := b.pins.openLink(p.name)
			if err != nil {
				return err
			}
			fresh.links[p.name] = l
		}
	}
	if err := endClearances(b.maps[bpf.MusterMapClearing]); err != nil {
		return err
	}
	return b.claim()
}

// claim names this process as the agent: its own operations are never denied.
func (b *Backend) claim() error {
	s, err := b.settings()
	if err != nil {
		return err
	}
	if err := claim(b.maps[bpf.MusterMapConfig], &s); err != nil {
		return err
	}
	b.settled = &s
	return nil
}

// restoreSettings puts back the settings that this agent left, whoever changed them meanwhile.
func (b *Backend) restoreSettings() error {
	config := b.maps[bpf.MusterMapConfig]
	if b.settled == nil || config == nil {
		return nil
	}
	if err := config.Put(uint32(0), b.settled); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// initialise gives new maps their key, before anything is attached that uses it: that of the entries which they took over,
// if there are any.
func (set *programSet) initialise(inherited hashKey, layout uint32) error {
	return set.change(func(s *bpf.MusterSettings) {
		if s.HashKey == ([2]uint64{}) {
			s.HashKey = inherited
		}
		for s.HashKey == ([2]uint64{}) {
			s.HashKey = [2]uint64{randomNumber(), randomNumber()}
		}
		s.Layout = layout
	})
}

// speak lets this set's programs emit the events from now on. Until they are all pinned no build is named: an attach
// that is cut short here is not adopted.
func (set *programSet) speak() error {
	return set.change(func(s *bpf.MusterSettings) { s.Build, s.Instance = 0, set.instance })
}

// sign leaves behind which programs are attached, for the next agent.
func (set *programSet) sign() error {
	tags := set.tagNumbers()
	return set.change(func(s *bpf.MusterSettings) { s.Build, s.Tags = bpf.Build(), tags })
}

// tagNumbers are the tags in the order of attached.
func (set *programSet) tagNumbers() (tags [bpf.MusterLimitPROGRAMS]uint64) {
	for i, p := range attached {
		if tag, err := strconv.ParseUint(set.tags[p.name], 16, 64); err == nil {
			tags[i] = tag // a program that is left out has none
		}
	}
	return tags
}

func (set *programSet) change(f func(*bpf.MusterSettings)) error {
	var s bpf.MusterSettings
	if err := set.Maps[bpf.MusterMapConfig].Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	f(&s)
	if err := set.Maps[bpf.MusterMapConfig].Put(uint32(0), &s); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

func (set *programSet) close() {
	for _, l := range set.links {
		if l != nil {
			_ = l.Close()
		}
	}
	set.Close()
}

// linkCondition says what is wrong with a pinned link: "" nothing, "missing", or "altered" when it holds
// another program than the one of that tag.
func (b *Backend) linkCondition(p program, tag string) (string, error) {
	program, err := b.linkedProgram(p.name)
	if errors.Is(err, link.ErrNotSupported) || errors.Is(err, os.ErrNotExist) {
		return "detached", nil
	}
	if err != nil {
		return "", err
	}
	if program == nil {
		return "missing", nil
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return "", fmt.Errorf("read program %s: %w", p.name, err)
	}
	if info.Tag != tag {
		return "altered", nil
	}
	if p.cgroup {
		return b.cgroupCondition(p.name)
	}
	return "", nil
}
