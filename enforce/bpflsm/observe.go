// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
)

// Observe implements enforce.Backend. Links, programs, maps, the settings, the published image and the marks that the
// agent made are read back from the kernel. What is right is known from this process's own attaching: the tags that
// this kernel gave its programs, and the settings that it left; before it attached anything, from what an agent of
// the same build left behind.
func (b *Backend) Observe(ctx context.Context, want []*enforce.Ruleset) (enforce.State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	state := enforce.State{Backend: Name, Subjects: map[enforce.SubjectID]enforce.SubjectState{}}
	if err := b.keepGuard(ctx); err != nil {
		return state, err
	}
	demanded, err := b.demanded()
	if err != nil {
		return state, err
	}
	if err := b.observeIdle(&state, demanded|b.constant()); err != nil {
		return state, err
	}
	wanted, tags, err := b.reference(demanded | b.observeSelf(&state))
	if err != nil {
		return state, err
	}
	ours, err := b.loadedIDs()
	if err != nil {
		return state, err
	}
	for _, p := range wanted {
		component, id, err := b.observeLink(p, tags[p.name])
		if err != nil {
			return state, err
		}
		ours[id] = true
		state.Components = append(state.Components, component)
	}
	extra, err := b.pins.extras(b.spec)
	if err != nil {
		return state, err
	}
	for _, path := range extra {
		state.Components = append(state.Components, enforce.Component{
			Kind: "pin", Name: filepath.Base(path), Condition: enforce.DriftExtra, Detail: path,
		})
	}
	maps, err := b.observeMaps(&state)
	if err != nil {
		return state, err
	}
	defer closeMaps(maps)
	if err := b.observeSettings(&state, maps); err != nil {
		return state, err
	}
	if err := b.observeSubject(ctx, &state, maps, want); err != nil {
		return state, err
	}
	if err := observeResisted(&state, maps); err != nil {
		return state, err
	}
	if state.Foreign, err = foreign(ours); err != nil {
		return state, err
	}
	return state, b.observeUnlabelled(ctx, &state)
}

// observeUnlabelled counts the processes that have no label.
func (b *Backend) observeUnlabelled(ctx context.Context, state *enforce.State) error {
	if b.loaded == nil {
		return nil
	}
	missing, err := runIterator(ctx, b.loaded.Programs[bpf.MusterProgLabelMissing])
	state.Unlabelled = len(missing) / 4
	return err
}

// reference are the programs that should be attached, and their tags: those that this process attached, else
// those that an agent of the same build left behind. Without either the tags are nil, and every link counts
// as altered.
func (b *Backend) reference(demanded demand) ([]program, map[string]string, error) {
	h, err := b.host()
	if err != nil {
		return nil, nil, err
	}
	wanted, err := h.supported(demanded)
	if err != nil {
		return nil, nil, err
	}
	s, err := b.attachedBy()
	if s == nil || err != nil || s.Build != bpf.Build() {
		return wanted, nil, err
	}
	tags := map[string]string{}
	for i, p := range attached {
		tags[p.name] = fmt.Sprintf("%016x", s.Tags[i])
	}
	return wanted, tags, nil
}

// attachedBy are the settings that say which programs were attached: those that this agent left, else those that another
// one did; nil for none.
func (b *Backend) attachedBy() (*bpf.MusterSettings, error) {
	if b.settled != nil {
		return b.settled, nil
	}
	config := b.maps[bpf.MusterMapConfig]
	if config == nil {
		pinned, err := b.pins.openMap(bpf.MusterMapConfig)
		if pinned == nil || err != nil {
			return nil, err
		}
		defer pinned.Close()
		config = pinned
	}
	var s bpf.MusterSettings
	if err := config.Lookup(uint32(0), &s); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return &s, nil
}

func (b *Backend) observeLink(p program, tag string) (enforce.Component, ebpf.ProgramID, error) {
	name := p.name
	c := enforce.Component{Kind: "link", Name: name}
	condition, err := b.linkCondition(p, tag)
	if err != nil {
		return c, 0, err
	}
	c.Condition = enforce.DriftKind(condition)
	switch condition {
	case "":
		program, err := b.linkedProgram(name)
		if program == nil || err != nil {
			return c, 0, err
		}
		defer program.Close()
		info, err := program.Info()
		if err != nil {
			return c, 0, fmt.Errorf("read program %s: %w", name, err)
		}
		id, _ := info.ID()
		return c, id, nil
	case "altered":
		c.Detail = "holds another program than this agent's"
	case "missing":
		c.Detail = b.pins.linkPath(name) + " does not exist"
	}
	return c, 0, nil
}

// observeMaps lists the pinned maps and opens them.
func (b *Backend) observeMaps(state *enforce.State) (map[string]*ebpf.Map, error) {
	maps := map[string]*ebpf.Map{}
	for _, name := range mapNames(b.spec) {
		c := enforce.Component{Kind: "map", Name: name}
		m, err := b.pins.openMap(name)
		if err != nil {
			closeMaps(maps)
			return nil, err
		}
		if m == nil {
			c.Condition, c.Detail = enforce.DriftMissing, b.pins.mapPath(name)+" does not exist"
		} else {
			maps[name] = m
			if b.maps != nil {
				same, err := sameMap(m, b.maps[name])
				if err != nil {
					closeMaps(maps)
					return nil, err
				}
				if !same {
					c.Condition, c.Detail = enforce.DriftAltered, "another map is pinned"
				}
			}
		}
		state.Components = append(state.Components, c)
	}
	return maps, nil
}

func closeMaps(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		_ = m.Close()
	}
}

// observeSettings compares the settings with those that this agent left: they say who is never denied, and who tells.
func (b *Backend) observeSettings(state *enforce.State, maps map[string]*ebpf.Map) error {
	config := maps[bpf.MusterMapConfig]
	if b.settled == nil || config == nil {
		return nil
	}
	var s bpf.MusterSettings
	if err := config.Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	if s == *b.settled {
		return nil
	}
	for i, c := range state.Components {
		if c.Kind == "map" && c.Name == bpf.MusterMapConfig && c.Condition == "" {
			state.Components[i].Condition, state.Components[i].Detail = enforce.DriftAltered, "the settings are not as this agent left them"
		}
	}
	return nil
}

// observeSubject compares the published image with what the wanted ruleset renders to, and its marks with those made.
func (b *Backend) observeSubject(ctx context.Context, state *enforce.State, maps map[string]*ebpf.Map, want []*enforce.Ruleset) error {
	slots, config := maps[bpf.MusterMapSlots], maps[bpf.MusterMapConfig]
	if slots == nil || config == nil {
		return nil
	}
	image, err := published(slots)
	if err != nil || image == nil {
		return err
	}
	var s bpf.MusterSettings
	if err := config.Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	found := enforce.SubjectState{Detail: "holds no ruleset of the wanted ones"}
	h := view[bpf.MusterImageHeader](image, 0, 0)
	found.Digest = hex.EncodeToString(h.Digest[:])
	found.Mode = enforce.ModeAudit
	if h.Mode == uint32(bpf.MusterModeMODE_ENFORCE) {
		found.Mode = enforce.ModeEnforce
	}
	for _, rs := range want {
		if rs.Subject != enforce.Host {
			continue
		}
		rendered, err := b.rendering(rs, hashKey(s.HashKey))
		if err != nil {
			return err
		}
		if digest := rs.Digest(); len(digest) > len(found.Digest) {
			found.Digest = digest[:len(digest)-len(found.Digest)] + found.Digest // with its prefix
		}
		if found.Intact = sha256.Sum256(image) == rendered.sum; found.Intact {
			found.Detail = ""
			b.reader.know(rendered)
			if err := b.observeMarks(ctx, rendered, &found); err != nil {
				return err
			}
		} else if found.Digest == rs.Digest() {
			found.Detail = "contents differ from what the ruleset renders to"
		}
	}
	state.Subjects[enforce.Host] = found
	return nil
}

// observeMarks looks whether the marks that the agent made for the image in force are there. One that took over what is in
// force has made none: it makes them now.
func (b *Backend) observeMarks(ctx context.Context, inForce *Image, found *enforce.SubjectState) error {
	if b.loaded == nil || b.maps[bpf.MusterMapMarks] == nil {
		return nil
	}
	if b.marked == nil || b.marked.ID != inForce.ID {
		return b.markExisting(ctx, inForce)
	}
	lost, err := b.lostMarks(ctx)
	if err == nil && len(lost) > 0 {
		found.Intact, found.Detail = false, fmt.Sprintf("%d protected files lack their marks, %s among them", len(lost), lost[0])
	}
	return err
}

// rendering is what rs renders to. The last one is remembered, without its bytes: a rendering is a function
// of the ruleset and the key.
func (b *Backend) rendering(rs *enforce.Ruleset, key hashKey) (*Image, error) {
	if b.last != nil && b.lastKey == key && b.last.ruleset.Digest() == rs.Digest() {
		return b.last, nil
	}
	image, err := render(rs, key)
	if err != nil {
		return nil, err
	}
	return b.remember(image, key), nil
}

// remember keeps the last rendering and answers what is kept of it: everything but its bytes.
func (b *Backend) remember(image *Image, key hashKey) *Image {
	kept := *image
	kept.Bytes = nil
	b.last, b.lastKey = &kept, key
	return b.last
}

// foreign are LSM programs of others. They are named and never touched.
func foreign(ours map[ebpf.ProgramID]bool) ([]string, error) {
	var found []string
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			slices.Sort(found)
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list programs: %w", err)
		}
		id = next
		if ours[id] {
			continue
		}
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone meanwhile
		}
		info, err := program.Info()
		if program.Type() == ebpf.LSM && err == nil {
			found = append(found, fmt.Sprintf("%s (program %d)", info.Name, id))
		}
		_ = program.Close()
	}
}

// loadedIDs are the programs that this process has loaded, attached or not.
func (b *Backend) loadedIDs() (map[ebpf.ProgramID]bool, error) {
	ids := map[ebpf.ProgramID]bool{}
	if b.loaded == nil {
		return ids, nil
	}
	for name, p := range b.loaded.Programs {
		info, err := p.Info()
		if err != nil {
			return nil, fmt.Errorf("read program %s: %w", name, err)
		}
		id, _ := info.ID()
		ids[id] = true
	}
	return ids, nil
}
