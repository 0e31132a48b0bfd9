#!/usr/bin/env bash
# Copyright The Operator Scaling Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Fails if the generated code differs from the output of hack/update-codegen.sh for the API types. Works on a copy and only
# reads the working tree.
set -o errexit -o nounset -o pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
copy="$(mktemp -d)"
trap 'rm -rf "${copy}"' EXIT

mkdir -p "${copy}/example-controller"
cp "${root}/go.mod" "${root}/go.sum" "${copy}/"
cp -R "${root}/hack" "${copy}/hack"
cp -R "${root}/example-controller/pkg" "${copy}/example-controller/pkg"

"${copy}/hack/update-codegen.sh"

if ! diff -ruN "${root}/example-controller/pkg" "${copy}/example-controller/pkg"; then
  echo >&2
  echo "Generated code is out of date. Run hack/update-codegen.sh and commit the changes." >&2
  exit 1
fi
echo "Generated code is up to date."
