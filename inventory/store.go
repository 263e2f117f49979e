// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/hashicorp/go-memdb"
)

// The tables. Pods and containers carry their namespace as an index, because that is how they are selected.
const (
	tableNode       = "node"
	tableNamespaces = "namespaces"
	tablePods       = "pods"
	tableContainers = "containers"

	indexID        = "id"
	indexNamespace = "namespace"
)

// Namespace is one namespace and its labels.
type Namespace struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Pod is one pod of this node.
type Pod struct {
	// ID is unique on the node and stays the same while the pod lives.
	ID        string            `json:"id"`
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// Container is one running container of this node, in a pod or not.
type Container struct {
	ID        string            `json:"id"`
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	PodID     string            `json:"podID,omitempty"`
	Image     string            `json:"image,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	// Cgroup is the id of its cgroup, by which the kernel knows its processes.
	Cgroup uint64 `json:"cgroup,omitempty"`
}

// nodeRow is the only row of the table node: memdb needs something to index.
type nodeRow struct {
	Key  string
	Node Node
}

// Store holds the inventory. Feeders write, each write being one transaction; readers take Snapshots.
type Store struct{ db *memdb.MemDB }

// NewStore makes an empty store.
func NewStore() *Store {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		// The schema is the constant below; a test makes it.
		panic(fmt.Sprintf("inventory schema: %v", err))
	}
	return &Store{db: db}
}

func schema() *memdb.DBSchema {
	table := func(name, key string, more ...*memdb.IndexSchema) *memdb.TableSchema {
		t := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
			indexID: {Name: indexID, Unique: true, Indexer: &memdb.StringFieldIndex{Field: key}},
		}}
		for _, index := range more {
			t.Indexes[index.Name] = index
		}
		return t
	}
	namespace := &memdb.IndexSchema{Name: indexNamespace, Indexer: &memdb.StringFieldIndex{Field: "Namespace"}}
	return &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
		tableNode:       table(tableNode, "Key"),
		tableNamespaces: table(tableNamespaces, "Name"),
		tablePods:       table(tablePods, "ID", namespace),
		tableContainers: table(tableContainers, "ID", namespace),
	}}
}

// SetNode replaces what is known of the node. Setting the same again changes nothing and wakes nobody.
func (s *Store) SetNode(node Node) error {
	txn := s.db.Txn(true)
	defer txn.Abort()
	row, err := txn.First(tableNode, indexID, tableNode)
	if err != nil {
		return fmt.Errorf("inventory: read node: %w", err)
	}
	if old, ok := row.(*nodeRow); ok && reflect.DeepEqual(old.Node, node) {
		return nil
	}
	if err := txn.Insert(tableNode, &nodeRow{Key: tableNode, Node: node.clone()}); err != nil {
		return fmt.Errorf("inventory: write node: %w", err)
	}
	txn.Commit()
	return nil
}

// Snapshot is the inventory at this moment: later writes do not show in it.
func (s *Store) Snapshot() *Snapshot { return &Snapshot{txn: s.db.Txn(false)} }

// Snapshot is one read transaction. It may be used by several goroutines.
type Snapshot struct{ txn *memdb.Txn }

// Node returns what is known of the node; false before the first SetNode.
func (s *Snapshot) Node() (Node, bool) {
	row, err := s.txn.First(tableNode, indexID, tableNode)
	if n, ok := row.(*nodeRow); err == nil && ok {
		return n.Node.clone(), true
	}
	return Node{}, false
}

// Changed is closed at the first change of the store after the snapshot was taken, even if that has already
// happened, or when ctx ends: then ctx.Err() says so.
func (s *Snapshot) Changed(ctx context.Context) <-chan struct{} {
	watch := memdb.NewWatchSet()
	for table := range schema().Tables {
		if rows, err := s.txn.Get(table, indexID); err == nil {
			watch.Add(rows.WatchCh())
		}
	}
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		_ = watch.WatchCtx(ctx) // its error is ctx's own
	}()
	return changed
}

// clone is a copy that shares nothing.
func (n Node) clone() Node {
	n.LSMs = slices.Clone(n.LSMs)
	n.BPF = maps.Clone(n.BPF)
	n.Labels = maps.Clone(n.Labels)
	return n
}
