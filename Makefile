# Copyright The Muster Authors
# SPDX-License-Identifier: Apache-2.0

# `make demo` and `make test` do all the set-up on a Debian machine: see test/setup.sh.

CACHE := $(or $(MUSTER_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/muster)
export PATH := $(CACHE)/go/bin:$(PATH)
export CGO_ENABLED := 0
export GOFLAGS ?= -buildvcs=false

VERSION := $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOL    := go tool -modfile=test/tools/go.mod

# Where and on what the lab's targets run.
KERNEL    ?= 6.12
SCENARIOS ?= test/conformance/scenarios
BACKENDS  ?= bpflsm
RUN       ?= .
FUZZTIME  ?= 1m
MEASURE   := $(if $(filter command line environment,$(origin KERNEL)),KERNEL='$(KERNEL)') GOFLAGS='$(GOFLAGS) -tags=measure' \
	go test -count=1 -v
LAB       := $(MEASURE) -timeout 60m ./test/agent

.PHONY: help build demo test attack evade survive latency lint generate vm conformance bench fuzz clean setup

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## install what is missing: Debian packages and Go
	@test/setup.sh

build: setup ## bin/musterd and bin/muster
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

demo: setup ## the main job, told step by step, in a throw-away VM
	go run ./test/demo

test: setup ## every test: house rules, unit, real servers, real kernels
	$(TOOL) gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- \
		-p 2 -timeout 80m ./...

lint: setup ## golangci-lint, clang-format, shellcheck
	$(TOOL) golangci-lint run ./...
	clang-format --dry-run --Werror bpf/*.c bpf/include/*.h
	shellcheck .ci/run test/setup.sh

generate: setup ## regenerate BPF objects and schemas
	go generate ./...

attack: setup ## attacks over Git and OCI, each refused by name, each with a control that is accepted
	@go test -count=1 ./test/attack && cat docs/attacks.md

evade: ## ways round a policy, each with a control that succeeds, on each kernel (KERNEL= for one)
	@test/setup.sh btrfs-progs
	@$(MEASURE) -timeout 150m ./test/evade -run TestInVM

survive: setup ## a 1 kHz probe through ten kills and ten swaps on each kernel (KERNEL= for one)
	@$(LAB) -run 'TestInVM//TestLabNoWrongOperation'

latency: setup ## from git push to enforced, 20 times, polling every second, on each kernel (KERNEL= for one)
	@$(LAB) -run 'TestInVM//TestLabPushToEnforced'

vm: setup ## a shell in a lab VM (KERNEL=6.1|6.12)
	go run ./test/vm/lab shell --kernel $(KERNEL)

conformance: setup ## run scenarios (SCENARIOS= BACKENDS= KERNEL= RUN=)
	@go run ./test/conformance/cmd/conformance -scenarios '$(SCENARIOS)' -backends '$(BACKENDS)' \
		-kernel '$(KERNEL)' -run '$(RUN)'

bench: setup ## the table of docs/performance.md
	go run ./test/bench/run

fuzz: setup ## every fuzz target for FUZZTIME each
	@go run ./test/house/fuzz -time $(FUZZTIME)

clean: ## remove what was built here (not the cache of kernels)
	rm -rf bin dist
