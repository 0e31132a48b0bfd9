// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build mutants

package shard_test

import (
	"flag"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tom-ludwig/operator-scaling/shard"
)

var mutantSeeds = flag.Int("mutant-seeds", 100, "how many seeds of TestFaults a broken rule may survive in TestLoopMutants")

// TestLoopMutants takes out one rule at a time. The fleet of TestFaults must notice
// each, or it would not notice if somebody broke it by mistake.
func TestLoopMutants(t *testing.T) {
	for _, mutant := range shard.Mutants {
		t.Run(mutant.Name, func(t *testing.T) {
			if mutant.Equivalent != "" {
				t.Skip("nothing can be noticed: ", mutant.Equivalent)
			}
			mutant.With(func() {
				if *onlySeed != 0 {
					t.Logf("seed %d: %q", *onlySeed, faults(t, *onlySeed))
					return
				}
				seed, problem := firstProblem(t, uint64(*mutantSeeds))
				if problem == "" {
					t.Fatalf("survived %d seeds", *mutantSeeds)
				}
				t.Logf("noticed with seed %d: %s", seed, problem) // again: -run TestLoopMutants/<name> -seed=<seed> -v
			})
		})
	}
}

// firstProblem runs seeds, a few at a time, until one goes wrong.
func firstProblem(t *testing.T, seeds uint64) (seed uint64, problem string) {
	var next atomic.Uint64
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for {
				mu.Lock()
				over := problem != ""
				mu.Unlock()
				s := next.Add(1)
				if over || s > seeds {
					return
				}
				if problems := faults(t, s); len(problems) > 0 {
					mu.Lock()
					if problem == "" || s < seed {
						seed, problem = s, problems[0]
					}
					mu.Unlock()
				}
			}
		})
	}
	workers.Wait()
	return seed, problem
}
