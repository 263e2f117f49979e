// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpflsm

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/muster-fleet/muster/bpf"
)

// stackLimit is what kernel 6.1 grants along the deepest chain of calls, callbacks of loops included; each function's
// part is rounded up to 32 bytes.
const stackLimit = 512

// frameLimit is how many functions every kernel lets be under way at once, callbacks included.
const frameLimit = 8

// stackUse is what one function has on its stack, and whom it calls.
type stackUse struct {
	bytes int
	calls map[string]bool
}

// TestStack adds up what the verifier of 6.1 does, on any machine.
func TestStack(t *testing.T) {
	t.Parallel()
	testStack(t, must(bpf.LoadMuster()))
	testStack(t, must(bpf.LoadProbing()))
	testStack(t, must(bpf.LoadOlder()))
}

func testStack(t *testing.T, spec *ebpf.CollectionSpec) {
	t.Helper()
	for name, p := range spec.Programs {
		uses := stackUses(p.Instructions)
		bytes, chain := deepest(uses, p.Instructions[0].Symbol())
		if bytes > stackLimit {
			t.Errorf("%s needs %d bytes of stack: %s", name, bytes, strings.Join(chain, ", "))
		}
		if chain := longest(uses, p.Instructions[0].Symbol()); len(chain) > frameLimit {
			t.Errorf("%s calls too deep: %s", name, strings.Join(chain, ", "))
		}
	}
}

// longest is the longest chain of calls.
func longest(uses map[string]*stackUse, function string) (chain []string) {
	for called := range uses[function].calls {
		if c := longest(uses, called); len(c) > len(chain) {
			chain = c
		}
	}
	return append([]string{function}, chain...)
}

func stackUses(instructions asm.Instructions) map[string]*stackUse {
	uses := map[string]*stackUse{}
	var use *stackUse
	for i, ins := range instructions {
		if s := ins.Symbol(); s != "" {
			use = &stackUse{calls: map[string]bool{}}
			uses[s] = use
		}
		switch class := ins.OpCode.Class(); {
		case class.IsStore() && ins.Dst == asm.R10, class.IsLoad() && ins.Src == asm.R10:
			use.bytes = max(use.bytes, -int(ins.Offset))
		case class.IsALU() && ins.OpCode.ALUOp() == asm.Add && i > 0 && instructions[i-1].Src == asm.R10:
			use.bytes = max(use.bytes, -int(ins.Constant)) // the address of a variable
		}
		if ins.IsFunctionCall() || ins.IsLoadOfFunctionPointer() {
			use.calls[ins.Reference()] = true
		}
	}
	return uses
}

func deepest(uses map[string]*stackUse, function string) (bytes int, chain []string) {
	for called := range uses[function].calls {
		if b, c := deepest(uses, called); b > bytes {
			bytes, chain = b, c
		}
	}
	own := max(uses[function].bytes, 1)
	return bytes + (own+31)/32*32, append([]string{function}, chain...)
}
