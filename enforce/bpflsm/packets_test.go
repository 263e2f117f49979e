// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/enforce/enforcetest"
	"github.com/muster-fleet/muster/policies"
)

// packetProgram runs the program for packets that leave, by BPF_PROG_TEST_RUN: it is attached nowhere.
type packetProgram struct {
	program *ebpf.Program
	slots   *ebpf.Map
	inner   *ebpf.MapSpec
	link    net.Interface
}

func newPacketProgram(t *testing.T) *packetProgram {
	t.Helper()
	newProber(t) // skips where nothing can be loaded
	spec := ownPrograms(t)
	var objects struct {
		Program *ebpf.Program `ebpf:"packet_out"`
		Slots   *ebpf.Map     `ebpf:"slots"`
	}
	p := &packetProgram{inner: innerSpec(spec)}
	must(0, sizeFor(spec, 1<<12, 2))
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	p.program, p.slots = objects.Program, objects.Slots
	t.Cleanup(func() { p.program.Close(); p.slots.Close() })
	links := must(net.Interfaces())
	at := slices.IndexFunc(links, func(l net.Interface) bool { return l.Flags&net.FlagLoopback == 0 })
	if at < 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no network interface but the loopback")
		}
		t.Skip("there is no network interface but the loopback")
	}
	p.link = links[at]
	return p
}

// passes says whether a packet is let out.
func (p *packetProgram) passes(t *testing.T, kind uint16, packet []byte) bool {
	t.Helper()
	frame := append(binary.BigEndian.AppendUint16(make([]byte, 12), kind), packet...)
	var context [192]byte // struct __sk_buff
	binary.LittleEndian.PutUint32(context[40:], uint32(p.link.Index))
	answer, err := p.program.Run(&ebpf.RunOptions{Data: frame, Context: context[:]})
	if err != nil {
		t.Fatal(err)
	}
	return answer&1 == 1
}

// carried is what stands behind the headers of IP.
func carried(f *enforce.Flow) (protocol byte, payload []byte) {
	ports := binary.BigEndian.AppendUint16([]byte{0x77, 0x77}, uint16(f.Port))
	switch f.Protocol {
	case "TCP":
		return unix.IPPROTO_TCP, append(ports, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0)
	case "UDP":
		return unix.IPPROTO_UDP, append(ports, 0, 8, 0, 0)
	case "SCTP":
		return unix.IPPROTO_SCTP, append(ports, 0, 0, 0, 0, 0, 0, 0, 0)
	default:
		return unix.IPPROTO_GRE, make([]byte, 8)
	}
}

func ipv4Packet(f *enforce.Flow, options int, fragment uint16) []byte {
	protocol, payload := carried(f)
	head := make([]byte, 20+4*options)
	head[0], head[8], head[9] = 0x45+byte(options), 64, protocol
	binary.BigEndian.PutUint16(head[2:], uint16(len(head)+len(payload)))
	binary.BigEndian.PutUint16(head[6:], fragment)
	copy(head[12:], []byte{203, 0, 113, 1})
	copy(head[16:], f.Peer.Unmap().AsSlice())
	return append(head, payload...)
}

// ipv6Packet puts headers between, each of 8 bytes and what the fragment says.
func ipv6Packet(f *enforce.Flow, headers []byte, fragment uint16) []byte {
	protocol, payload := carried(f)
	chain := slices.Concat(headers, []byte{protocol})
	head := make([]byte, 40)
	head[0], head[6], head[7] = 0x60, chain[0], 64
	copy(head[8:], netip.MustParseAddr("2001:db8:ffff::1").AsSlice())
	copy(head[24:], f.Peer.AsSlice())
	for i := range headers {
		between := make([]byte, 8)
		between[0] = chain[i+1]
		if headers[i] == unix.IPPROTO_FRAGMENT {
			binary.BigEndian.PutUint16(between[2:], fragment)
		}
		head = append(head, between...)
	}
	binary.BigEndian.PutUint16(head[4:], uint16(len(head)-40+len(payload)))
	return append(head, payload...)
}

// TestPacketsAgree compares what the program makes of packets with what the rules say of their flows.
func TestPacketsAgree(t *testing.T) {
	t.Parallel()
	p := newPacketProgram(t)
	r := rand.New(rand.NewPCG(1, 2))
	judged := map[bool]int{}
	for seed := range uint64(30) {
		g := enforcetest.NewGenerator(seed)
		rs := g.Flows(1 + int(seed)/3)
		rs.Mode = enforce.ModeEnforce
		must(0, publish(p.slots, p.inner, must(render(rs, testKey)).Bytes))
		for n := range 40 {
			f := g.Flow()
			f.Interface = p.link.Name
			want := rs.Decide(enforce.Operation{Class: policies.ClassEgress, Flow: f}).Verdict == enforce.Permit
			var packet []byte
			kind, broken := uint16(unix.ETH_P_IP), n%8 == 7
			if f.Peer.Unmap().Is4() {
				packet = ipv4Packet(f, r.IntN(4), 0)
				if broken {
					packet = ipv4Packet(f, 0, 1)
				}
			} else {
				kind = unix.ETH_P_IPV6
				headers := [][]byte{nil, {unix.IPPROTO_HOPOPTS}, {unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS}, {unix.IPPROTO_FRAGMENT}}
				packet = ipv6Packet(f, headers[r.IntN(len(headers))], 1)
				if broken {
					packet = ipv6Packet(f, []byte{unix.IPPROTO_DSTOPTS, unix.IPPROTO_FRAGMENT}, 9)
				}
			}
			if broken && f.Protocol != "" { // a later piece has no ports: denied where something is forbidden
				want = !rs.Restricts(policies.ClassEgress)
			}
			if got := p.passes(t, kind, packet); got != want {
				t.Fatalf("seed %d: %s %+v passes: %v, want %v\n%x\n%s", seed, f.Path(), *f, got, want, packet, dump(rs))
			}
			judged[want]++
		}
	}
	if judged[true] < 100 || judged[false] < 100 {
		t.Errorf("the rules say too little: %v", judged)
	}
}

func TestCgroupRoot(t *testing.T) {
	t.Parallel()
	for table, want := range map[string]string{
		"29 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw":                                 "/sys/fs/cgroup",
		"29 23 0:26 /a /here rw - cgroup2 x rw\n30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 x rw": "/sys/fs/cgroup/unified",
		"29 23 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw":                                            "",
	} {
		file := filepath.Join(t.TempDir(), "mountinfo")
		must(0, os.WriteFile(file, []byte(table+"\n"), 0o600))
		if got, err := cgroupRoot(file); got != want || (want == "") != (err != nil) {
			t.Errorf("%q: %q, %v", table, got, err)
		}
	}
}

// TestSeesPackets: without control groups there is a gap, and nobody makes one by unmounting them.
func TestSeesPackets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "mountinfo")
	without := "29 23 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw\n"
	must(0, os.WriteFile(file, []byte(without), 0o600))
	b := must(New(Config{}))
	if b.seesPackets(file) {
		t.Error("control groups of version 1 were taken for those of version 2")
	}
	must(0, os.WriteFile(file, []byte("29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"), 0o600))
	if !b.seesPackets(file) {
		t.Error("not found when they were mounted")
	}
	must(0, os.WriteFile(file, []byte(without), 0o600))
	if !b.seesPackets(file) {
		t.Error("unmounting them gave the rules up")
	}
}
