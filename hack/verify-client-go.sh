#!/usr/bin/env bash
# Builds and tests the root module with a newer version of client-go than go.mod requires, with the tests of what newer
# versions have added:
#   hack/verify-client-go.sh 0.37.2
# It works on a copy: with -modfile, the tests that read go.mod would see the wrong version. With -build it runs no tests.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?usage: hack/verify-client-go.sh VERSION [-build]}
go=${GO:-go}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r go.mod go.sum ./*.md docs example-controller hack informer shard workqueue "$copy"
cd "$copy"
for module in api apimachinery client-go; do
	$go mod edit -require "k8s.io/$module@v$version"
done
$go mod tidy
used=$($go list -m -f '{{.Version}}' k8s.io/client-go)
[ "$used" = "v$version" ] || { echo "FAILED: the build uses client-go $used" >&2; exit 1; }
tags='-tags client_go_037'
$go build ./...
$go vet $tags ./...
[ "${2-}" != -build ] || exit 0
$go test -vet=off $tags -short -timeout 60m ./...
$go test -vet=off $tags -short -race -timeout 30m ./informer ./workqueue
