// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package service runs musterd as its users do: as the systemd unit of deploy, started by muster join, on a Debian
// whose process 1 is systemd, reporting over a real sshd; and boots that host again, offline.
package service
