#!/usr/bin/env bash
# Checks everything that is not a test: formatting, vet, lint, import rules,
# generated code. It prints how to fix each fault. "hack/verify.sh all" also runs
# the checks that take minutes, because they analyze or download kube-apiserver.
set -euo pipefail
cd "$(dirname "$0")/.."
tool() { go tool -modfile=hack/tools/go.mod "$@"; }
step() { printf '== %s\n' "$*"; }
failed=0
fail() { printf 'FAILED: %s\n' "$*" >&2; failed=1; }

# Not git ls-files: this also works in a copy without .git, or in one that git does not trust.
files=$(find . -name '*.go' -not -path './bin/*' -not -path '*/generated/*' -not -name 'zz_generated*')
[ -n "$files" ] || { echo 'FAILED: no Go files found' >&2; exit 1; }

step formatting
unformatted=$(tool gofumpt -l $files)
[ -z "$unformatted" ] || fail "not formatted; run 'make fmt':
$unformatted"

step license headers
for f in $files; do
	head -n 5 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || fail "$f: no license header"
done

step go.mod is tidy
modules='. hack/tools'
[ "${1-}" != all ] || modules="$modules test"
for m in $modules; do
	(cd "$m" && go mod tidy -diff >/dev/null) || fail "$m/go.mod is not tidy; run 'go mod tidy' there"
done

step import rules
hack/verify-imports.sh || failed=1

step vet
go vet ./...
library=$(go list -m)
(cd test && go vet -tags client_go_037 "$library/informer" "$library/shard") # with the tests of newer versions of client-go
if [ "${1-}" = all ]; then
	(cd test && go vet ./...)
else
	(cd test && go vet $(go list ./... | grep -v /cmd/control-plane))
fi

step staticcheck
tool staticcheck ./shard/... ./informer/... ./workqueue/... ./example-controller ./example-controller/operator || failed=1
# Not in test/: staticcheck would have to analyze kube-apiserver.

step contextual logging
tool logcheck -check-contextual=true ./shard/... ./informer/... ./workqueue/... ./example-controller ./example-controller/operator || failed=1

step generated code
hack/verify-codegen.sh || failed=1

exit $failed
