#!/usr/bin/env bash
# Runs the benchmarks whose figures are in the README. Each compares with plain
# client-go in the same run, so that figures of different machines can be compared.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${COUNT:-1}
run() { # package, pattern
	printf '\n== %s %s\n' "$1" "$2"
	go test "./$1" -run '^$' -bench "$2" -benchmem -count "$count" | grep -E '^(Benchmark|cpu:)|^ *(partitions|[0-9]+) ' || true
}
run shard "Owns|Acquire|Start"
run shard/ring .
run shard/internal/claim .
run informer .
run workqueue .
