// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unsafe"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/automaton"
	"github.com/muster-fleet/muster/policies"
)

// ErrUnrenderable says that a ruleset holds what no image can: Compile should have left a gap instead.
var ErrUnrenderable = errors.New("ruleset cannot be rendered")

// classes are the enforced classes by their number in the image.
var classes = [bpf.MusterClassCLASSES]policies.Class{
	bpf.MusterClassCLASS_PROCESS: policies.ClassProcess,
	bpf.MusterClassCLASS_FILE:    policies.ClassFile,

	bpf.MusterClassCLASS_DNS:          policies.ClassDNS,
	bpf.MusterClassCLASS_NETWORK:      policies.ClassNetwork,
	bpf.MusterClassCLASS_CAPABILITIES: policies.ClassCapabilities,
	bpf.MusterClassCLASS_SYSCALLS:     policies.ClassSyscalls,
	bpf.MusterClassCLASS_PRESET:       policies.ClassPreset,
	bpf.MusterClassCLASS_INGRESS:      policies.ClassIngress,
	bpf.MusterClassCLASS_EGRESS:       policies.ClassEgress,
}

// markClasses are those whose objects are files, known by their inodes too.
const markClasses = int(bpf.MusterLimitMARK_CLASSES)

// Image is a rendered ruleset: what the kernel gets, and what only the agent needs to read its events.
type Image struct {
	Bytes []byte
	// ID names the contents: the kernel puts it into every event.
	ID uint64
	// Audits are the lists that events name by number; number 0 is none.
	Audits [][]int
	// Protected are the paths whose inodes are to be marked, by their hash.
	Protected map[uint64]string
	// sum is of Bytes.
	sum     [sha256.Size]byte
	ruleset *enforce.Ruleset
}

// renderer lays out one ruleset. Everything interned is interned in the order of first use, so that one
// ruleset and one key always give the same bytes.
type renderer struct {
	layout
	key        hashKey
	ruleset    *enforce.Ruleset
	resolver   *enforce.Rows
	audits     [][]int
	auditOf    map[string]uint32
	rows       map[imageRow]ref
	meanings   map[string]*meaning // of lists of rules
	sets       map[markedSet]ref
	scratch    []byte                // for a key of meanings
	args       map[string]ref        // lists of arguments
	conditions map[string]ref        // lists of conditions
	groups     []enforce.SourceClass // one of each group of sources that occur in the same rules
	groupOf    []int                 // the group of each source
	sources    []string
	protected  [markClasses]map[string][]int
	marked     []string                                    // all paths whose files are marked, sorted
	hashes     []uint64                                    // theirs
	within     [][]enforce.Directory                       // those that sources can lie in together
	named      [bpf.MusterLimitNAMED_CLASSES]map[int][]int // rules by number
	dry        dryPolicies
	dryLists   map[[bpf.MusterClassCLASSES]bpf.MusterImageDry]ref
}

// imageRow is a row as it stands in the image; comparable, to be interned.
type imageRow [bpf.MusterLimitROW_ENTRIES]imageEntry

type imageEntry struct{ priority, rule, audits, conditions uint32 }

// named and marked are the classes of a source group, by name and by mark; class 0 is no known source.
func named(group int) uint32  { return 1 + 2*uint32(group) }
func marked(group int) uint32 { return 2 + 2*uint32(group) }

// render lays rs out under the boot's key.
func render(rs *enforce.Ruleset, key hashKey) (*Image, error) {
	r := &renderer{
		key: key, ruleset: rs, resolver: enforce.NewRows(rs), audits: [][]int{nil}, auditOf: map[string]uint32{},
		rows: make(map[imageRow]ref, len(rs.Rules)), meanings: make(map[string]*meaning, len(rs.Rules)), sets: make(map[markedSet]ref, 3*len(rs.Rules)), args: map[string]ref{}, conditions: map[string]ref{},
		sources: rs.Sources(), dry: newDryPolicies(rs),
		dryLists: map[[bpf.MusterClassCLASSES]bpf.MusterImageDry]ref{},
	}
	r.bytes = make([]byte, 0, pageBytes+bytesPerRule*len(rs.Rules))
	r.reserve(headerUnits)
	r.groupSources()
	r.findMarked()
	h := bpf.MusterImageHeader{
		Magic: uint32(bpf.MusterMagicIMAGE_MAGIC), Layout: uint32(bpf.MusterMagicIMAGE_LAYOUT),
		Mode: uint32(modeNumber(rs.Mode)),
	}
	digest, err := hex.DecodeString(strings.TrimPrefix(rs.Digest(), "sha256:"))
	if err != nil || copy(h.Digest[:], digest) != len(h.Digest) {
		return nil, fmt.Errorf("%w: digest %q", ErrUnrenderable, rs.Digest())
	}
	if err := r.sourceDirectories(&h); err != nil {
		return nil, err
	}
	for class := range classes {
		if h.Classes[class], err = r.class(class); err != nil {
			return nil, err
		}
	}
	if err := r.calls(&h); err != nil {
		return nil, err
	}
	r.sourceTable(&h)
	r.markTable(&h)
	r.postures(&h)
	r.concerns(&h)
	return r.finish(&h), nil
}

// bytesPerRule is what a rule on one path takes about; an image may take more.
const bytesPerRule = 400

// headerUnits is where the image's records begin.
const headerUnits = (int(unsafe.Sizeof(bpf.MusterImageHeader{})) + unitBytes - 1) / unitBytes

func (r *renderer) finish(h *bpf.MusterImageHeader) *Image {
	h.Units = uint32(len(r.bytes) / unitBytes)
	// Whole pages: the kernel's map has no other size.
	r.grow((len(r.bytes) + pageBytes - 1) / pageBytes * unitsPerPage)
	*view[bpf.MusterImageHeader](r.bytes, 0, 0) = *h
	sum := sha256.Sum256(r.bytes)
	id := binary.LittleEndian.Uint64(sum[:])
	view[bpf.MusterImageHeader](r.bytes, 0, 0).Id = id
	image := &Image{
		Bytes: r.bytes, ID: id, Audits: r.audits, Protected: make(map[uint64]string, len(r.marked)),
		sum: sha256.Sum256(r.bytes), ruleset: r.ruleset,
	}
	for i, path := range r.marked {
		image.Protected[r.hashes[i]] = path
	}
	return image
}

// groupSources gives source paths that occur in exactly the same rules one class.
func (r *renderer) groupSources() {
	members := make([][]int, len(r.sources))
	for i := range r.ruleset.Rules {
		for _, path := range r.ruleset.Rules[i].Sources {
			at, _ := slices.BinarySearch(r.sources, path)
			members[at] = append(members[at], i)
		}
	}
	r.groupOf = make([]int, len(r.sources))
	known := map[string]int{}
	for at, rules := range members {
		rules = slices.Compact(rules)
		key := listKey(rules)
		group, ok := known[key]
		if !ok {
			group = len(r.groups)
			known[key] = group
			r.groups = append(r.groups, enforce.SourceClass(at))
		}
		r.groupOf[at] = group
	}
}

// class lays out what the objects of one class are known by.
func (r *renderer) class(class int) (bpf.MusterImageClass, error) {
	var c bpf.MusterImageClass
	for i := range r.ruleset.Rules {
		rule := &r.ruleset.Rules[i].Rule
		if rule.Class != classes[class] {
			continue
		}
		c.Flags |= uint32(bpf.MusterClassFlagCLASS_HAS_RULES)
		if rule.HasArgs {
			c.Flags |= uint32(bpf.MusterClassFlagCLASS_ARGUMENTS)
		}
	}
	if slices.Contains(r.ruleset.Visible, classes[class]) {
		c.Flags |= uint32(bpf.MusterClassFlagCLASS_VISIBLE)
	}
	if closers := r.ruleset.DryClosers(classes[class]); len(closers) > 0 {
		c.Flags |= uint32(bpf.MusterClassFlagCLASS_DRY)
		c.Dry = r.audit(closers)
	}
	if r.ruleset.Restricts(classes[class]) {
		c.Flags |= uint32(bpf.MusterClassFlagCLASS_CLOSED)
	}
	if r.ruleset.Reports(classes[class]) {
		c.Flags |= uint32(bpf.MusterClassFlagCLASS_AUDITS)
	}
	if classes[class] == policies.ClassProcess && r.ruleset.BlocksMapping() {
		c.Flags |= uint32(bpf.MusterClassFlagCLASS_MAPPED)
	}
	if classes[class] == policies.ClassSyscalls {
		return c, nil
	}
	if r.ruleset.NamesInterfaces(classes[class]) {
		c.Flags |= uint32(bpf.MusterClassFlagCLASS_INTERFACES)
	}
	if numbers[classes[class]] != nil {
		return c, r.numbers(class, &c)
	}
	return c, r.automata(class, &c)
}

// automata lays out those of a class whose objects have paths, or names that are written as paths.
func (r *renderer) automata(class int, c *bpf.MusterImageClass) error {
	matchers := r.ruleset.Matchers(classes[class])
	var watched []string
	if class < markClasses {
		watched = r.marked
	}
	// Names that are protected in either class, or are sources, have a matcher of their own: a file that
	// has such a name is marked by it. Their index lies behind the rules and stands for no rule.
	matchers = slices.Grow(matchers, len(watched))
	for i, path := range watched {
		matchers = append(matchers, automaton.Matcher{Index: len(r.ruleset.Rules) + i, Kind: automaton.Exact, Text: path})
	}
	if class < markClasses && len(r.marked) > 0 {
		c.Flags |= uint32(bpf.MusterClassFlagCLASS_WATCHES)
	}
	dfas, excluded := automaton.Compile(matchers, automaton.Options{})
	for _, e := range excluded {
		if e.Index < len(r.ruleset.Rules) {
			return fmt.Errorf("%w: rule %d: %s", ErrUnrenderable, e.Index, e.Reason)
		}
	}
	if len(dfas) > len(c.Start) {
		return fmt.Errorf("%w: %d automata", ErrUnrenderable, len(dfas))
	}
	for i, dfa := range dfas {
		c.Start[i] = uint32(writeStates(&r.layout, dfa, func(set uint32) ref {
			return r.set(dfa.Sets[set])
		}))
	}
	return nil
}

// watches says whether any path of rs is to be marked.
func watches(rs *enforce.Ruleset) bool {
	return slices.ContainsFunc(rs.Rules, func(rule enforce.Rule) bool { return len(rule.Sources) > 0 }) ||
		slices.ContainsFunc(classes[:markClasses], func(class policies.Class) bool { return len(rs.MarkSets(class)) > 0 })
}

// findMarked finds the paths whose files are marked: those of exact Blocks, and the sources.
func (r *renderer) findMarked() {
	r.marked = slices.Clone(r.sources)
	for class := range r.protected {
		r.protected[class] = r.ruleset.MarkSets(classes[class])
		r.marked = slices.AppendSeq(r.marked, maps.Keys(r.protected[class]))
	}
	slices.Sort(r.marked)
	r.marked = slices.Compact(r.marked)
	r.hashes = make([]uint64, len(r.marked))
	for i, path := range r.marked {
		r.hashes[i] = r.key.hash(path)
	}
}

// set lays out the rules that match at one state: indexes behind the rules only say which path it is.
func (r *renderer) set(indexes []int) ref {
	first, _ := slices.BinarySearch(indexes, len(r.ruleset.Rules))
	mark := 0
	if first < len(indexes) {
		mark = 1 + indexes[first] - len(r.ruleset.Rules)
	}
	return r.internSet(indexes[:first], mark)
}

func listKey(list []int) string { return string(appendList(nil, list)) }

func appendList(b []byte, list []int) []byte {
	for _, n := range list {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	return b
}

func hashList(list []uint64) string {
	b := make([]byte, 0, 8*len(list))
	for _, n := range list {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return string(b)
}

func modeNumber(mode enforce.Mode) bpf.MusterMode {
	if mode == enforce.ModeEnforce {
		return bpf.MusterModeMODE_ENFORCE
	}
	return bpf.MusterModeMODE_AUDIT
}
