// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package worklog

import "time"

func now() int64 { return time.Now().UnixNano() }
