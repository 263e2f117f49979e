// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muster-fleet/muster/inventory"
	"github.com/muster-fleet/muster/inventory/host"
	"github.com/muster-fleet/muster/reconciler/config"
)

// gatherEvery is how often the node's facts are read again: a label that changes needs no signal.
const gatherEvery = 10 * time.Second

// hostFacts is the loop's view of this host: the inventory's node, and what must stay possible on it.
type hostFacts struct {
	path    string // of the configuration
	root    fs.FS
	store   *inventory.Store
	changed chan struct{}
	log     *slog.Logger
	bpf     map[string]bool // the kernel's BPF features, which do not change while it runs
	cfg     atomic.Pointer[config.Config]
}

func newHost(path string, cfg *config.Config, features func() (map[string]bool, error), log *slog.Logger) (*hostFacts, error) {
	found, err := features()
	if err != nil {
		log.Warn("the kernel's BPF features are not known", "error", err)
	}
	h := &hostFacts{path: path, root: os.DirFS("/"), store: inventory.NewStore(), changed: make(chan struct{}, 1), log: log, bpf: found}
	return h, h.refresh(cfg)
}

// refresh reads the facts with cfg, now and from now on. Labels select policies: each time their file is read nobody
// else may have been able to write it.
func (h *hostFacts) refresh(cfg *config.Config) error {
	options := host.Options{BPF: h.bpf}
	if cfg.Labels != "" {
		options.LabelsFile = strings.TrimPrefix(filepath.Clean(cfg.Labels), "/")
		if err := checkOwnership(cfg.Labels); err != nil {
			return fmt.Errorf("labels: %w", err)
		}
	}
	node, err := host.Gather(h.root, options)
	if err != nil {
		return err
	}
	h.cfg.Store(cfg)
	return h.store.SetNode(node)
}

// watch gathers again and again, and tells the loop of every change.
func (h *hostFacts) watch(ctx context.Context) error {
	ticker := time.NewTicker(gatherEvery)
	defer ticker.Stop()
	changed := h.store.Snapshot().Changed(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			changed = h.store.Snapshot().Changed(ctx)
			select {
			case h.changed <- struct{}{}:
			default: // it has not looked since the last one
			}
		case <-ticker.C:
			if err := h.refresh(h.cfg.Load()); err != nil {
				h.log.Warn("host facts not read; the ones from before hold", "error", err)
			}
		}
	}
}

// Node is the host as it was last read.
func (h *hostFacts) Node() (inventory.Node, bool) { return h.store.Snapshot().Node() }

// Changed is signalled after Node changed.
func (h *hostFacts) Changed() <-chan struct{} { return h.changed }

// Resolve follows symlinks.
func (h *hostFacts) Resolve(paths []string) map[string]string { return host.Resolve(h.root, paths) }
