// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/muster-fleet/muster/inventory"
)

func node(hostname string) inventory.Node {
	return inventory.Node{Hostname: hostname, LSMs: []string{"bpf"}, Labels: map[string]string{"kubernetes.io/hostname": hostname}}
}

func TestSnapshotIsImmutable(t *testing.T) {
	t.Parallel()
	store := inventory.NewStore()
	empty := store.Snapshot()
	given := node("a")
	if err := store.SetNode(given); err != nil {
		t.Fatal(err)
	}
	given.Labels["kubernetes.io/hostname"], given.LSMs[0] = "changed", "changed"
	first := store.Snapshot()
	if err := store.SetNode(node("b")); err != nil {
		t.Fatal(err)
	}
	if _, ok := empty.Node(); ok {
		t.Error("the snapshot from before shows the node")
	}
	got, ok := first.Node()
	if !ok || got.Hostname != "a" || got.Labels["kubernetes.io/hostname"] != "a" || got.LSMs[0] != "bpf" {
		t.Errorf("first snapshot: %+v", got)
	}
	got.Labels["kubernetes.io/hostname"] = "changed"
	if again, _ := first.Node(); again.Labels["kubernetes.io/hostname"] != "a" {
		t.Error("a reader changed the snapshot")
	}
	if got, _ := store.Snapshot().Node(); got.Hostname != "b" {
		t.Errorf("newest: %+v", got)
	}
}

func TestChanged(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	store := inventory.NewStore()
	first := store.Snapshot().Changed(ctx)
	if err := store.SetNode(node("a")); err != nil {
		t.Fatal(err)
	}
	<-first
	if ctx.Err() != nil {
		t.Fatal("the first node woke nobody")
	}
	before := store.Snapshot()
	second := before.Changed(ctx)
	if err := store.SetNode(node("a")); err != nil { // the same again
		t.Fatal(err)
	}
	select {
	case <-second:
		t.Error("the same node again woke somebody")
	default:
	}
	if err := store.SetNode(node("b")); err != nil {
		t.Fatal(err)
	}
	<-second
	<-before.Changed(ctx) // a change that has already happened counts
	if ctx.Err() != nil {
		t.Fatal("a change woke nobody")
	}

	stopped, stop := context.WithCancel(ctx)
	third := store.Snapshot().Changed(stopped)
	stop()
	<-third
	if !errors.Is(stopped.Err(), context.Canceled) {
		t.Error("closed without a change")
	}
}

// TestConcurrent is for the race detector: one feeder, many readers, no mixture of two moments.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	store := inventory.NewStore()
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 500 {
				if n, ok := store.Snapshot().Node(); ok && n.Labels["kubernetes.io/hostname"] != n.Hostname {
					t.Errorf("mixture: %+v", n)
				}
			}
		})
	}
	for i := range 500 {
		if err := store.SetNode(node(fmt.Sprintf("host-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	wait.Wait()
}
