#!/usr/bin/env bash
# Copyright The Operator Scaling Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Runs parts of the tests, in the given order: hack/test.sh PART..., where a part is one of the functions below. The script
# prints what each part does, how long it usually takes on two cores, and its progress every half minute. When the script
# is interrupted or terminated, everything that it has started ends too.
set -euo pipefail
cd "$(dirname "$0")/.."
set -m # each part gets its own process group, so that it can be ended as a whole
go=${GO:-go}
log=$(mktemp)
interrupted=
trap 'rm -f "$log"' EXIT

verify() { # formatting, vet, lint, import rules, generated code (1 min; 4 min the first time)
	hack/verify.sh
}

verify_all() { # the same, and vet the packages that take long (2 min; 8 min the first time)
	hack/verify.sh all
}

# The pure packages have no goroutines: the race detector would only make them slow.
pure='./shard/ring ./shard/internal/claim ./shard/internal/claim/claimsim'

unit() { # unit tests; packages with goroutines under the race detector; client-go's own tests (3 min; 8 min the first time)
	together unit_first unit_second unit_that_waits
}

# Most of these tests run in one process, on one CPU. So run two at a time, and a third that mostly waits. verify vets
# everything.
unit_first() {
	$go test -vet=off -timeout 30m $pure ./shard
	$go test -vet=off -timeout 30m ./informer -run 'TestModel$' # one goroutine
	newest_client_go
	race_shard "${shard_first[@]}"
}

waits='/(informer|shardtest|example-controller)$' # client-go's tests of informers and the examples sleep

unit_second() {
	local others
	others=$($go list ./... | grep -v -E "/shard$|/shard/(ring|internal/claim.*)$|/generated/|$waits") # a separate assignment, so that its failure ends the script
	race -short ./informer -skip '^TestUpstream'
	race -short $others
	race_shard "${shard_second[@]}"
}

unit_that_waits() {
	race -short ./informer -run '^TestUpstream'
	race -short ./shard/shardtest ./example-controller
}

# together runs functions at the same time. All run in the background, because set -e has no effect in a function that is
# called in a condition.
together() {
	local part job jobs=() code=0
	for part in "$@"; do
		"$part" &
		jobs+=($!)
	done
	for job in "${jobs[@]}"; do
		wait "$job" || code=$?
	done
	return "$code"
}

# The tests of what newer versions of client-go have added. The module test has such a version, and e2e needs the same build.
newest_client_go() {
	local library tests
	library=$($go list -m)
	tests=$(sed -n 's/^func \(Test[^(]*\).*/\1/p' {informer,shard}/client_go_*_test.go | paste -sd '|')
	(cd test && $go test -vet=off -timeout 30m -tags client_go_037 "$library/informer" "$library/shard" -run "^($tests)\$")
}

# race runs tests under the race detector, whose runtime may crash in programs that simulate hours with testing/synctest:
# often in one process, sometimes in several. This message comes from there, and never from a fault in Go code, which is
# a panic. So run the tests once more then.
race() {
	local try code output
	for try in 1 2 3; do
		code=0
		output=$($go test -vet=off -race -timeout 60m "$@" 2>&1) || code=$?
		grep -q '^SIGSEGV: segmentation violation' <<<"$output" || break
		echo "the runtime of the race detector has crashed in go test $*: once more"
	done
	if ((code == 0)); then
		grep '^ok' <<<"$output"
	else
		printf '%s\n' "$output" >&2
	fi
	return "$code"
}

# race_shard runs tests of ./shard, without the slow ones, which run without the race detector: one process for each
# pattern. The two lists have all tests between them.
shard_first=('^(Test[A-C]|Example|Fuzz)' '^TestR[5-9a-z_]')
shard_second=('^Test[D-G]' '^Test[H-L]' '^Test[M-Q]' '^TestR[0-4]' '^Test[S-Z]')
race_shard() {
	local tests
	for tests in "$@"; do
		race -short ./shard -run "$tests"
	done
}

unit_all() { # all unit tests, all but the slow ones of ./shard under the race detector
	local others
	others=$($go list ./... | grep -v -E '/shard$')
	race $others
	$go test -vet=off -timeout 30m ./shard
	race_shard "${shard_first[@]}" "${shard_second[@]}"
}

# go.mod requires the oldest version of client-go that the library supports. Here it runs with the newest one that is tested.
client_go() { # build and test the library and the example with the newest version of client-go (6 min)
	hack/verify-client-go.sh 0.37.2
}

benchmarks() { # each benchmark once, to check that it works (1 min)
	local all
	all=$($go list ./... | grep -v /example-controller)
	$go test -vet=off -run '^$' -short -bench . -benchtime 1x $all | tee "$log" | grep -E '^(ok|FAIL|--- FAIL)'
}

mutants() { # the mutation gates: disable one rule at a time; a test must fail (10 min)
	$go test -vet=off -timeout 60m -count=1 ./shard/internal/claim -run TestMutants -args -mutants
	$go test -vet=off -timeout 60m -count=1 ./shard -run 'TestMutants$' -args -mutants
	$go test -vet=off -timeout 60m -count=1 ./informer -run TestMutants -args -mutants
	$go test -vet=off -timeout 60m -count=1 ./workqueue -run TestMutants -args -mutants
	cd test && $go test -vet=off -timeout 60m -count=1 ./chaos -run TestMutantsAreCaught -args -mutants
}

simulate() { # SEEDS (10000) seeds of the simulation of the state machine, FLEETS (300) of whole members and twice as many of controllers that come and go (20 min)
	local figures='pairs of faults|rarest|missing|^(ok|FAIL|--- FAIL)'
	$go test -vet=off -v ./shard/internal/claim/claimsim -run TestSimulation -count=1 -timeout 120m -args -seeds="${SEEDS:-10000}" | tee "$log" | grep -E "$figures"
	$go test -vet=off -v ./shard -run TestFaults -count=1 -timeout 120m -args -seeds="${FLEETS:-300}" | tee "$log" | grep -E "$figures"
	$go test -vet=off -v ./shard -run TestControllersThatComeAndGo -count=1 -timeout 120m -args -seeds=$((${FLEETS:-300} / 5)) | tee "$log" | grep -E "what has happened|$figures"
}

controlplane() { # build etcd, kube-apiserver and the programs that they need (10 s; 6 min the first time)
	cd test && $go test -vet=off -count=1 -timeout 60m -v -run TestBuildLog ./controlplane # the package builds them before any test
}

# One package at a time: with the replicas of two packages on two cores, heartbeats would be late. Never from the cache: the
# processes under test are not part of its key.
endtoend="$go test -vet=off -count=1 -p 1 -v"

e2e() { # end-to-end tests: real replicas on a real control plane; a few faults of make chaos (4 min)
	cd test && $endtoend -short -timeout 60m ./... 2>&1 | progress
}

e2e_all() { # all end-to-end tests, the demo, every fault of make chaos once (12 min)
	cd test && $endtoend -timeout 180m ./... 2>&1 | progress
}

chaos() { # faults for DURATION (10m) on real replicas
	cd test && $go run ./cmd/chaos -duration "${DURATION:-10m}" ${SEED:+-seed "$SEED"} ${OUT:+-out "$OUT"}
}

# progress shows the tests that took a second or more, the failures and the figures. It keeps the whole output for a failure.
progress() {
	trap '' INT TERM HUP # interrupted tests still print output at their end
	tee "$log" | awk '
		/^FIGURE/ { table = 1 }
		/^$/ { table = 0 }
		table || /^(--- FAIL|ok |FAIL|panic:|control plane:)/ || /^--- PASS.*\(([1-9]|[0-9][0-9]+)\.[0-9]+s\)/ || /does not count/ { print; fflush() }'
}

run() {
	local part=$1 job ticker began=$SECONDS code=0
	printf '== %s\n' "$part: $(sed -n "s/^$part() { # //p" "$0")"
	: >"$log"
	"$part" </dev/null &
	job=$!
	(while sleep 30; do printf '   ... %s, after %d s: %s\n' "$part" $((SECONDS - began)) "$(sed -n 's/^=== RUN *//p' "$log" | tail -n 1)"; done) &
	ticker=$!
	disown "$ticker" # otherwise bash reports its end
	trap 'interrupted=1; kill -INT -- "-$job" 2>/dev/null' INT
	# Not SIGINT: processes that a script starts in the background ignore it.
	trap 'interrupted=1; kill -TERM -- "-$job" 2>/dev/null' TERM HUP
	while :; do
		code=0
		wait "$job" || code=$?
		kill -0 "$job" 2>/dev/null || break # still running: a signal has ended the wait
	done
	trap - INT TERM HUP
	kill -- "-$ticker"
	[ -z "$interrupted" ] || { echo "interrupted: $part" >&2; exit 130; }
	if ((code != 0)); then
		cat "$log"
		printf 'FAILED: %s\n' "$part" >&2
		exit 1
	fi
	printf '   %s took %d s\n' "$part" $((SECONDS - began))
}

for part in "$@"; do
	run "$part"
done
