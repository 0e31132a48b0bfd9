// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package claimsim simulates fleets of state machines of package claim. It contains tests
// only, and uses the exported API of package claim only.
//
// Each run has a seed, from which everything follows: the fleet, its faults, the network, the
// clocks and the order of all events. It has no goroutine and no real time. Checks that know
// the server, every process and the real time watch all members after each step, and compare
// what they do with the guarantees of the protocol.
//
//	go test ./shard/internal/claim/claimsim -run TestSimulation -args -seeds=10000
//	go test ./shard/internal/claim/claimsim -run TestSimulation -v -args -seed=42
package claimsim
