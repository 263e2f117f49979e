// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
)

// foldBatch is how many folds are read by one system call.
const foldBatch = 256

// foldSpec is the kind of map that folds are counted in.
func foldSpec(spec *ebpf.CollectionSpec) *ebpf.MapSpec {
	inner := spec.Maps[bpf.MusterMapFolds].InnerMap.Copy()
	inner.Name = "fold"
	return inner
}

// prepareFolds puts empty maps where there are none: until then every event is told by itself.
func prepareFolds(outer *ebpf.Map, spec *ebpf.MapSpec) error {
	for kind := range uint32(bpf.MusterFoldKindFOLDS) {
		var id ebpf.MapID
		err := outer.Lookup(kind, &id)
		if err == nil {
			continue
		}
		if !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read the folds: %w", err)
		}
		if err := beginFolds(outer, spec, kind); err != nil {
			return err
		}
	}
	return nil
}

// beginFolds puts an empty map in force. When it returns, no program works on the one before: the kernel
// waits for them before it answers an update of a map of maps.
func beginFolds(outer *ebpf.Map, spec *ebpf.MapSpec, kind uint32) error {
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return fmt.Errorf("make a map of folds: %w", err)
	}
	defer m.Close()
	if err := outer.Put(kind, m); err != nil {
		return fmt.Errorf("begin new folds: %w", err)
	}
	return nil
}

// takeFolds begins new folds of a kind and returns what was counted in the old ones. Folds that counted
// nothing are left out: their events were told.
func takeFolds(outer *ebpf.Map, spec *ebpf.MapSpec, kind uint32) ([]bpf.MusterFold, error) {
	var id ebpf.MapID
	if err := outer.Lookup(kind, &id); err != nil {
		return nil, errors.Join(fmt.Errorf("read the folds: %w", err), beginFolds(outer, spec, kind))
	}
	old, err := ebpf.NewMapFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open the folds: %w", err)
	}
	defer old.Close()
	if _, err := old.NextKeyBytes(nil); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil // empty, and as good as a new one
	}
	if err := beginFolds(outer, spec, kind); err != nil {
		return nil, err
	}
	return readFolds(old)
}

func readFolds(m *ebpf.Map) ([]bpf.MusterFold, error) {
	var found []bpf.MusterFold
	keys := make([]bpf.MusterFoldKey, foldBatch)
	values := make([]bpf.MusterFold, foldBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range values[:n] {
			if values[i].Head.Count > 0 {
				found = append(found, values[i])
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return found, nil
		}
		if err != nil {
			return found, fmt.Errorf("read the folds: %w", err)
		}
	}
}

// harvest hands on what was counted since the last time. It is cheap when nothing happened.
func (d *decoder) harvest(s *session, sink func(enforce.Event)) error {
	offered, err := readCounter(s.counters, bpf.MusterCounterCOUNT_EVENTS)
	if err != nil || offered == s.harvested {
		return err
	}
	for kind := range uint32(bpf.MusterFoldKindFOLDS) {
		found, err := takeFolds(s.folds, s.foldSpec, kind)
		for i := range found {
			d.deliverFold(&found[i], kind, sink)
		}
		if err != nil {
			return err
		}
	}
	s.harvested = offered
	return nil
}

// deliverFold hands on one event for all that a fold counted, with the process of the last.
func (d *decoder) deliverFold(f *bpf.MusterFold, kind uint32, sink func(enforce.Event)) {
	h := &f.Event
	h.Time, h.Pid, h.Ppid, h.Sequence = f.Head.Last, f.Head.Pid, f.Head.Ppid, 0
	raw := unsafe.Slice((*byte)(unsafe.Pointer(h)), unsafe.Sizeof(*h)+unsafe.Sizeof(f.Data))
	event, err := d.decode(raw, true)
	if err != nil {
		d.reader.lose(lossReason(err), f.Head.Count)
		return
	}
	event.Count, event.Since = f.Head.Count, d.clock.at(f.Head.First)
	if bpf.MusterFoldKind(kind) == bpf.MusterFoldKindFOLDS_RULE {
		event.Various = true
	}
	sink(event)
}
