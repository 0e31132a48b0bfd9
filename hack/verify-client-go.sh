#!/usr/bin/env bash
# Builds and tests the library with another version of client-go than that of go.mod:
#   hack/verify-client-go.sh 0.36.0
# It works on a copy without the example, whose generated code needs the version of go.mod, and
# without the tests of what newer versions have added. With -build it runs no tests.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?usage: hack/verify-client-go.sh VERSION [-build]}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r go.mod go.sum shard informer workqueue "$copy"
mkdir "$copy/hack"
cp -r hack/mutation "$copy/hack"
cd "$copy"
rm -f ./*/client_go_*_test.go
go mod edit -require "k8s.io/client-go@v$version" -require "k8s.io/api@v$version" -require "k8s.io/apimachinery@v$version"
go mod tidy
go build ./...
go vet ./...
[ "${2-}" = -build ] || go test -short ./informer ./workqueue ./shard/...
