// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/muster-fleet/muster/bpf"
	"github.com/muster-fleet/muster/enforce"
)

// sample is an event as the kernel lays it out: a denied open by the first rule of an image.
func sample(image *Image, paths ...string) []byte {
	h := bpf.MusterEvent{
		Time: 1e9, Image: image.ID, Sequence: 7, Cpu: 1, Pid: 4711, Ppid: 4000, Uid: 1000, Rule: 1,
		Class: uint8(bpf.MusterClassCLASS_FILE), Operation: uint8(bpf.MusterOperationOP_OPEN),
		Hook: uint8(bpf.MusterHookHOOK_FILE_OPEN), Verdict: uint8(bpf.MusterVerdictVERDICT_DENY),
		Mode: uint8(bpf.MusterModeMODE_ENFORCE),
	}
	copy(h.Comm[:], []int8{'c', 'a', 't'})
	for i, p := range paths {
		h.Lengths[i] = uint16(len(p))
	}
	head := unsafe.Slice((*byte)(unsafe.Pointer(&h)), unsafe.Sizeof(h))
	return append(append([]byte{}, head...), strings.Join(paths, "")...)
}

// execSample is an event of a program that is started in a directory with arguments, of which there are more.
func execSample(image *Image, directory string, args ...string) []byte {
	raw := sample(image, "/usr/bin/id", "", "/usr/bin/bash", "/usr/sbin/sshd", directory)
	h := view[bpf.MusterEvent](aligned(raw), 0, 0)
	h.Class, h.Operation = uint8(bpf.MusterClassCLASS_PROCESS), uint8(bpf.MusterOperationOP_EXEC)
	h.Flags |= uint8(bpf.MusterEventFlagEVENT_CUT)
	text := strings.Join(args, "\x00") + "\x00"
	h.Arguments = uint16(len(text))
	head := unsafe.Slice((*byte)(unsafe.Pointer(h)), unsafe.Sizeof(*h))
	return append(append(append([]byte{}, head...), raw[len(head):]...), text...)
}

func testImage(t testing.TB) *Image {
	t.Helper()
	image, err := render(rules(enforce.ModeEnforce, enforce.PostureAudit, block("/etc/shadow")), testKey)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func testDecoder(image *Image) *decoder {
	b := bareBackend()
	b.reader.know(image)
	return newDecoder(&b.reader, func(uint64) string { return "" })
}

// TestDecode takes events apart, whole and cut.
func TestDecode(t *testing.T) {
	t.Parallel()
	image := testImage(t)
	d := testDecoder(image)
	raw := sample(image, "/etc/shadow", "", "/usr/bin/cat", "/usr/bin/bash")
	e, err := d.decode(raw, false)
	if err != nil {
		t.Fatal(err)
	}
	if e.Resource != "/etc/shadow" || e.Source != "/usr/bin/cat" || e.Parent != "/usr/bin/bash" || e.Comm != "cat" ||
		e.Count != 1 || e.Rule == nil || e.Rule.Policy.Name != "p00000" || e.Verdict != enforce.Deny {
		t.Errorf("%+v", e)
	}
	short := raw[:len(raw)-len("/usr/bin/bash")-3]
	if _, err := d.decode(short, false); err == nil {
		t.Error("a sample that ends too early was taken")
	}
	if e, err := d.decode(short, true); err != nil || e.Resource != "/etc/shadow" || e.Source != "" {
		t.Errorf("%+v %v", e, err)
	}
	for n := range int(unsafe.Sizeof(bpf.MusterEvent{})) {
		if _, err := d.decode(raw[:n], true); err == nil {
			t.Errorf("%d bytes were taken for an event", n)
		}
	}
	other := *image
	other.ID++
	d.deliver(sample(&other, "/x"), func(enforce.Event) { t.Error("an event of an unknown ruleset was handed on") })
	if n := d.reader.losses[lossUnknownRuleset]; n != 1 {
		t.Errorf("%d lost", n)
	}
}

// TestDecodeArguments takes what an event says of a program that is started, and refuses it when it ends too early.
func TestDecodeArguments(t *testing.T) {
	t.Parallel()
	image := testImage(t)
	d := testDecoder(image)
	raw := execSample(image, "/root", "-c", "", "rm -rf /")
	e, err := d.decode(aligned(raw), false)
	if err != nil {
		t.Fatal(err)
	}
	if e.Cwd != "/root" || !slices.Equal(e.Args, []string{"-c", "", "rm -rf /"}) || !e.ArgsCut || e.Parent != "/usr/sbin/sshd" {
		t.Errorf("%+v", e)
	}
	short := aligned(raw[:len(raw)-1])
	if _, err := d.decode(short, false); err == nil {
		t.Error("a sample that ends within the arguments was taken")
	}
	if e, err := d.decode(short, true); err != nil || e.Cwd != "/root" || e.Args != nil {
		t.Errorf("%+v %v", e, err)
	}
}

// TestDeliverFold hands on one event for many, and loses as many when their ruleset is not known.
func TestDeliverFold(t *testing.T) {
	t.Parallel()
	image := testImage(t)
	d := testDecoder(image)
	raw := sample(image, "/etc/shadow", "", "/usr/bin/cat", "/usr/bin/bash")
	var f bpf.MusterFold
	f.Event = *view[bpf.MusterEvent](raw, 0, 0)
	copy(f.Data[:], raw[unsafe.Sizeof(f.Event):])
	f.Head = bpf.MusterFoldHead{Told: 116, Count: 100, First: 2e9, Last: 3e9, Pid: 9, Ppid: 8}
	var got []enforce.Event
	d.deliverFold(&f, uint32(bpf.MusterFoldKindFOLDS_OBJECT), func(e enforce.Event) { got = append(got, e) })
	if len(got) != 1 || got[0].Count != 100 || got[0].PID != 9 || got[0].PPID != 8 || got[0].Sequence != 0 ||
		got[0].Time.Sub(got[0].Since).Seconds() != 1 || got[0].Resource != "/etc/shadow" || got[0].Various {
		t.Errorf("%+v", got)
	}
	f.Event.Image++
	d.deliverFold(&f, uint32(bpf.MusterFoldKindFOLDS_RULE), func(enforce.Event) { t.Error("handed on") })
	if n := d.reader.losses[lossUnknownRuleset]; n != 100 {
		t.Errorf("%d lost", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	image := testImage(b)
	d := testDecoder(image)
	raw := sample(image, "/etc/shadow", "", "/usr/bin/cat", "/usr/bin/bash")
	b.ReportAllocs()
	for b.Loop() {
		d.deliver(raw, func(enforce.Event) {})
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
