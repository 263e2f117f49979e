#!/usr/bin/env bash
# Copyright The Muster Authors
# SPDX-License-Identifier: Apache-2.0
#
# Makes a Debian machine ready for `make demo` and `make test`: the Debian packages of
# test/vm/packages.txt and a current Go. Installs what is missing when it may (root, or sudo without
# a password); otherwise says in one line what to run. Changes nothing when nothing is missing. Arguments
# are further packages, which one target alone needs.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
readonly here
readonly cache=${MUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/muster}
readonly go_version=1.26.8

fail() {
	printf 'setup: error: %s\nsetup: hint: %s\n' "$1" "$2" >&2
	exit 1
}

wanted_packages() {
	sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/vm/packages.txt"
}

missing_packages() {
	local name
	for name in "$@"; do
		dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || printf '%s\n' "$name"
	done
}

install_packages() {
	local missing as_root=()
	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$(id -u)" -ne 0 ]; then
		sudo -n true 2>/dev/null || fail "Debian packages are missing: ${missing[*]}" \
			"sudo apt-get install --no-install-recommends ${missing[*]}"
		as_root=(sudo -n)
	fi
	printf 'setup: installing %s\n' "${missing[*]}" >&2
	"${as_root[@]}" apt-get update -qq >&2
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# has_go succeeds for a Go that is new enough, or that fetches the wanted toolchain by itself (1.21).
has_go() {
	local have
	have=$("$1" env GOVERSION 2>/dev/null) || return 1
	have=${have#go}
	[ "$(printf '%s\n1.21\n' "$have" | sort -V | head -n 1)" = 1.21 ]
}

# install_go fetches the toolchain as the Go module it is published as, so that Go's own checksum
# database vouches for it; Debian's older Go serves as the client.
install_go() {
	has_go go || has_go "$cache/go/bin/go" && return 0
	install_packages golang-go
	printf 'setup: fetching Go %s\n' "$go_version" >&2
	local answer dir staging
	answer=$(cd / && GOFLAGS=-modcacherw go mod download -json \
		"golang.org/toolchain@v0.0.1-go$go_version.linux-amd64") ||
		fail "Go $go_version could not be fetched: $answer" "install Go $go_version or newer by hand"
	dir=$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$answer")
	mkdir -p "$cache"
	staging=$(mktemp -d "$cache/go.XXXXXX")
	cp -R "$dir/." "$staging/"
	chmod -R u+w "$staging"
	chmod 755 "$staging" "$staging"/bin/* "$staging"/pkg/tool/*/*
	mv "$staging" "$cache/go"
}

command -v apt-get >/dev/null || fail "this is not a Debian machine" \
	"install Go $go_version, clang 14, QEMU and the other packages of test/vm/packages.txt by hand"
mapfile -t wanted < <(wanted_packages)
install_packages "${wanted[@]}" "$@"
install_go
