// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "errors"

func newMuster(int) (subject, error) { return nil, errors.New("not yet") }
