#!/usr/bin/env bash
# Checks which package may import which. Imports of this module run one way:
#   ring <- claim <- lease <- member <- shard, and informer, workqueue import ring only.
#   The packages under shard/internal never import shard. Users import none of them.
#   inspect is the public package that reads Leases.
# The root module has few direct dependencies. It never depends on controller-runtime.
set -euo pipefail
cd "$(dirname "$0")/.."
module=github.com/tom-ludwig/operator-scaling
failed=0
fail() { printf 'FAILED: %s\n' "$*" >&2; failed=1; }

# Package, then the packages of this module that its non-test files may import.
allowed() {
	case "$1" in
	shard/ring) echo "" ;;
	shard/internal/claim) echo "shard/ring" ;;
	shard/internal/lease) echo "shard/ring shard/internal/claim" ;;
	informer | workqueue) echo "shard/ring" ;;
	shard/shardtest) echo "shard/internal/leaseserver" ;;
	shard/inspect) echo "shard/ring shard/internal/claim shard/internal/lease" ;;
	shard/internal/metrics) echo "shard/ring shard/internal/claim informer" ;;
	shard/internal/podlock) echo "" ;;
	shard/internal/cachesync) echo "shard/ring shard/internal/claim" ;;
	shard/internal/member) echo "shard/ring shard/internal/claim shard/internal/lease shard/internal/metrics shard/internal/podlock informer workqueue" ;;
	shard) echo "shard/ring shard/inspect shard/internal/claim shard/internal/lease shard/internal/member shard/internal/cachesync shard/internal/metrics shard/internal/podlock informer workqueue" ;;
	example-controller*) echo "ANY" ;;
	*) echo "NONE" ;;
	esac
}

while read -r pkg imports; do
	rel=${pkg#"$module"/}
	may=$(allowed "$rel")
	for i in $imports; do
		case "$i" in
		sigs.k8s.io/controller-runtime*) fail "$rel imports $i: controller-runtime is never allowed" ;;
		k8s.io/utils*) [[ "$rel" == example-controller/pkg/generated* ]] || fail "$rel imports $i: it is not a dependency of the library" ;;
		"$module"/*)
			[ "$may" = ANY ] && continue
			case " $may " in
			*" ${i#"$module"/} "*) ;;
			*) fail "$rel imports ${i#"$module"/}: it may import only: ${may:-no package of this module}" ;;
			esac
			;;
		k8s.io/client-go* | k8s.io/api/*)
			case "$rel" in
			shard/ring | shard/internal/claim) fail "$rel imports $i: the package must be pure" ;;
			esac
			;;
		time)
			case "$rel" in
			shard/ring) fail "$rel imports $i: the package must not use a clock" ;;
			esac
			;;
		net | net/http | os)
			case "$rel" in
			shard/ring | shard/internal/claim) fail "$rel imports $i: the package must be pure" ;;
			esac
			;;
		esac
	done
done < <(go list -f '{{.ImportPath}} {{join .Imports " "}}' ./...)

# time.Now and similar functions in the pure packages.
if grep -nE 'time\.(Now|Since|Until|Sleep|After|NewTimer|NewTicker)\b' shard/internal/claim/*.go shard/internal/leaseserver/*.go shard/ring/*.go | grep -v _test.go; then
	fail "shard/internal/claim, shard/internal/leaseserver and shard/ring must not use a clock: time is an argument"
fi

# Goroutines of the library start only here, and each under a Run that joins it: a file, the
# number of places in it that start goroutines, and what joins them.
goroutines() {
	cat <<-'END'
		shard/internal/member/member.go 2 Member.Run: wait; OnChange in awaitCalls, for StopGracePeriod at most
		shard/internal/member/fence.go 2 Member.Run: OnOverrun in awaitCalls, for StopGracePeriod at most; its log joins it
		workqueue/meter.go 1 no Run, as in client-go: ShutDown of the queue joins it
		workqueue/clientgo.go 1 no Run, as in client-go: ShutDown of the user's own delaying queue ends it
		shard/internal/lease/watch.go 1 Watch.Run: streams
		shard/internal/lease/calls.go 1 its Call; at most 32 that ignore the end of their contexts are abandoned
		informer/replay.go 1 Informer.Replay: workers
		shard/shardtest/rehearsal.go 1 Rehearsal.Run: members
	END
}
starts='(^|[^[:alnum:]_"`.])go (func\>|[[:alpha:]_][[:alnum:]_.]*\()|\.Go\(|\<AfterFunc\('
for f in $(find shard informer workqueue -name '*.go' -not -name '*_test.go'); do
	# Comments do not count.
	found=$(sed -E 's@(^|[[:space:]])//.*@@' "$f" | grep -cE "$starts" || true)
	listed=$(goroutines | awk -v f="$f" '$1 == f { n = $2 } END { print n + 0 }')
	[ "$found" = "$listed" ] || fail "$f starts goroutines in $found places, $listed are listed in hack/verify-imports.sh: which Run joins them?"
done
for f in $(goroutines | cut -d' ' -f1); do
	[ -f "$f" ] || fail "$f no longer starts goroutines: remove it from the list in hack/verify-imports.sh"
done

# Direct dependencies of the root module.
direct='github.com/buraksezer/consistent|github.com/prometheus/client_golang|github.com/zeebo/xxh3|k8s.io/api|k8s.io/apimachinery|k8s.io/client-go|k8s.io/klog/v2'
tests='github.com/google/go-cmp|go.uber.org/goleak|k8s.io/utils'
extra=$(go list -m -f '{{if not (or .Indirect .Main)}}{{.Path}}{{end}}' all | grep -v -xE "$direct|$tests" || true)
[ -z "$extra" ] || fail "the root module depends directly on: $extra"
used=$(go list -f '{{join .Imports "\n"}}' ./... | grep -E "^(github.com/google/go-cmp|go.uber.org/goleak)" || true)
[ -z "$used" ] || fail "only tests may import: $used"

exit $failed
